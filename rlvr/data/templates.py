"""How a question becomes a prompt: templates by name, or any text that contains `{question}`."""

from difflib import get_close_matches

from rlvr.data.base import Prompt
from rlvr.errors import UserError

BOXED_INSTRUCTION = "Please reason step by step, and put your final answer within \\boxed{}."
"""The instruction of Qwen2.5-Math (arXiv 2409.12122), which most work on verifiable mathematics has taken over."""

PAPER_8020 = f"User:\n{{question}}\n{BOXED_INSTRUCTION}\n\nAssistant:\n"
"""The prompt of the 80/20 study (arXiv 2506.01939): plain text, so that a base model needs no chat template."""

NAMES = ("none", "paper_8020", "qwen_boxed", "chat")
PLACE = "{question}"


def check_template(template: str, system: str | None) -> None:
    """Refuse a template that is neither a name nor a text with `{question}`, and a system prompt with no place to go.

    Raises:
        UserError: naming the setting and what was expected.
    """
    if template not in NAMES and PLACE not in template:
        close = get_close_matches(template, NAMES, n=1)
        hint = f"did you mean {close[0]}?" if close else f"expected {', '.join(NAMES)}, or a text with {PLACE}"
        raise UserError(f"data.template is {template!r}; {hint}")
    if system is not None and template != "chat":
        raise UserError(
            f"data.system is set but data.template is {template!r}, which has no place for it; set data.template=chat"
        )


def render_prompt(question: Prompt, template: str, system: str | None = None) -> Prompt:
    """The prompt of one question.

    Args:
        question: text, or a chat as the data holds it.
        template: `none` leaves it as it stands; `paper_8020` is `PAPER_8020`; `qwen_boxed` is a chat whose system
            prompt is `BOXED_INSTRUCTION`; `chat` is a chat with `system`, if any; a text with `{question}` is itself.
        system: the system prompt of `chat`.

    Returns:
        Text, or chat messages that the tokenizer's own chat template renders later.

    Raises:
        UserError: for an unknown template, a chat in a template for text, or a second system prompt.
    """
    check_template(template, system)
    if template == "none":
        return question
    if template == "chat":
        return _chat(question, system)
    if not isinstance(question, str):
        raise UserError(
            f"the data holds chats but data.template is {template!r}, which takes text; set data.template to none or "
            "chat, or take the text of a single message, e.g. data.prompt_column=prompt.0.content"
        )
    if template == "qwen_boxed":
        return _chat(question, BOXED_INSTRUCTION)
    # Not str.format: the texts are full of braces.
    return (PAPER_8020 if template == "paper_8020" else template).replace(PLACE, question)


def _chat(question: Prompt, system: str | None) -> Prompt:
    messages = [{"role": "user", "content": question}] if isinstance(question, str) else list(question)
    if system is None:
        return messages
    if any(message["role"] == "system" for message in messages):
        raise UserError("data.system is set but the data's chats have a system prompt of their own; set it to null")
    return [{"role": "system", "content": system}, *messages]
