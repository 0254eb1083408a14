"""Prompts as token ids: chats through the tokenizer's own template, text with the tokenizer's special tokens."""

from collections.abc import Sequence
from typing import Any

from rlvr.data.base import Prompt
from rlvr.errors import UserError
from rlvr.evaluation.requests import Request


def render_chat(tokenizer: Any, prompt: Prompt) -> str:
    """A chat as text, up to where the model answers.

    Raises:
        UserError: if the tokenizer has no chat template.
    """
    if tokenizer.chat_template is None:
        raise UserError(
            "the prompt is a chat, but the model's tokenizer has no chat template; expected an instruction-tuned "
            "model: choose a protocol for text, e.g. protocol=paper_8020, or template=none"
        )
    return tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True)


def encode_requests(tokenizer: Any, requests: Sequence[Request]) -> list[list[int]]:
    """Token ids of each request's prompt, as in training; a prompt that is asked for many times is encoded once.

    Chats hold their special tokens as the template writes them; texts get the tokenizer's.
    """
    known: dict[str, list[int]] = {}
    encoded = []
    for request in requests:
        name = repr(request.prompt)
        if name not in known:
            if isinstance(request.prompt, str):
                known[name] = tokenizer(request.prompt)["input_ids"]
            else:
                text = render_chat(tokenizer, request.prompt)
                known[name] = tokenizer(text, add_special_tokens=False)["input_ids"]
            if not known[name]:
                raise UserError(f"the prompt of {request.key.benchmark} {request.key.problem_id} has no tokens")
        encoded.append(known[name])
    return encoded
