"""Leave out prompts that are too long, counted in the tokens the policy will read."""

from collections.abc import Sequence
from typing import Any

from rlvr.data.base import Problem
from rlvr.errors import UserError

_AT_ONCE = 512


def prompt_lengths(problems: Sequence[Problem], tokenizer: Any) -> list[int]:
    """Tokens of each prompt, special tokens included.

    Args:
        problems: what is asked.
        tokenizer: called with a list of texts it returns `input_ids`; for chats it has `apply_chat_template`.

    Raises:
        UserError: if a prompt is a chat and the tokenizer has no chat template.
    """
    lengths: list[int] = []
    for start in range(0, len(problems), _AT_ONCE):
        prompts = [problem.prompt for problem in problems[start : start + _AT_ONCE]]
        texts = [prompt for prompt in prompts if isinstance(prompt, str)]
        counts = iter([len(ids) for ids in tokenizer(texts)["input_ids"]] if texts else [])
        lengths += [next(counts) if isinstance(prompt, str) else _chat_length(prompt, tokenizer) for prompt in prompts]
    return lengths


def _chat_length(chat: list[dict[str, str]], tokenizer: Any) -> int:
    # The template writes the special tokens itself.
    return len(tokenizer([_rendered(chat, tokenizer)], add_special_tokens=False)["input_ids"][0])


def _rendered(chat: list[dict[str, str]], tokenizer: Any) -> str:
    """A chat as the policy reads it.

    Raises:
        UserError: if the tokenizer has no chat template, or its template refuses the chat.
    """
    from jinja2 import TemplateError

    if not getattr(tokenizer, "chat_template", None):
        raise UserError(
            "the prompts are chats but the tokenizer has no chat template; use a model that has one, or a template for "
            "text, e.g. data.template=paper_8020"
        )
    try:
        return str(tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True))
    except TemplateError as error:
        roles = ", ".join(message["role"] for message in chat)
        raise UserError(
            f"the tokenizer's chat template refuses a chat of the roles {roles} ({' '.join(str(error).split())}); "
            "change data.template or data.system, or use a model that takes them"
        ) from None


def check_prompts(problems: Sequence[Problem], tokenizer: Any) -> int:
    """Refuse prompts that the tokenizer cannot read, judged by the first few hundred texts and chats.

    Returns:
        Tokens of the longest prompt among them.

    Raises:
        UserError: if the tokenizer has no chat template, its template refuses the chat, its vocabulary lacks a word,
            or a prompt has no tokens.
    """
    longest = 0
    for chats in (False, True):
        some = [problem for problem in problems if isinstance(problem.prompt, list) == chats][:_AT_ONCE]
        try:
            lengths = prompt_lengths(some, tokenizer)
        except UserError:
            raise
        except Exception as error:  # the tokenizers library raises nothing more precise
            raise UserError(
                f"the tokenizer cannot read the prompt {str(some[0].prompt)[:60]!r} or one after it ({error}); choose "
                "a model whose vocabulary covers the data: model.path=builtin knows digits, + - * = and \\boxed{} only"
            ) from None
        if 0 in lengths:
            raise UserError(
                f"the tokenizer finds no token in the prompt {str(some[lengths.index(0)].prompt)[:60]!r}; expected the "
                "tokenizer of the model: look at tokenizer_class in its tokenizer_config.json"
            )
        longest = max([longest, *lengths])
    return longest


def filter_long(problems: Sequence[Problem], tokenizer: Any, limit: int | None) -> tuple[list[Problem], int]:
    """The problems whose prompts fit.

    Args:
        problems: what is asked.
        tokenizer: as for `prompt_lengths`.
        limit: the most tokens a prompt may have; None keeps every problem and asks the tokenizer nothing.

    Returns:
        The kept problems in their order, and how many were dropped.

    Raises:
        UserError: if no prompt fits, or a chat cannot be rendered.
    """
    if limit is None:
        return list(problems), 0
    lengths = prompt_lengths(problems, tokenizer)
    kept = [problem for problem, length in zip(problems, lengths, strict=True) if length <= limit]
    if problems and not kept:
        raise UserError(
            f"none of {len(problems)} prompts fits data.max_prompt_tokens={limit}; the shortest has {min(lengths)} "
            "tokens: raise the limit, or set it to null"
        )
    return kept, len(problems) - len(kept)
