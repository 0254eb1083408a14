"""Prompts letter by letter, and their lengths in tokens."""

from typing import Any

import pytest

from rlvr.data.base import Problem
from rlvr.data.lengths import filter_long, prompt_lengths
from rlvr.data.templates import check_template, render_prompt
from rlvr.errors import UserError

CHAT = [{"role": "user", "content": "What is 6*7?"}]


def test_the_prompt_of_the_8020_study() -> None:
    assert render_prompt("What is {6*7}?", "paper_8020") == (
        "User:\nWhat is {6*7}?\nPlease reason step by step, and put your final answer within \\boxed{}.\n\nAssistant:\n"
    )


def test_the_prompt_of_qwen_math() -> None:
    assert render_prompt("What is 6*7?", "qwen_boxed") == [
        {"role": "system", "content": "Please reason step by step, and put your final answer within \\boxed{}."},
        {"role": "user", "content": "What is 6*7?"},
    ]


def test_none_chat_and_a_text_of_ones_own() -> None:
    assert render_prompt("What is 6*7?", "none") == "What is 6*7?"
    assert render_prompt(CHAT, "none") == CHAT
    assert render_prompt("What is 6*7?", "chat") == CHAT
    assert render_prompt(CHAT, "chat") == CHAT
    system = [{"role": "system", "content": "Be brief."}]
    assert render_prompt("What is 6*7?", "chat", "Be brief.") == system + CHAT
    assert render_prompt(CHAT, "chat", "Be brief.") == system + CHAT
    assert render_prompt("6*7", "Q: {question}\nA: \\boxed{") == "Q: 6*7\nA: \\boxed{"


@pytest.mark.parametrize("template", ["paper_8020", "qwen_boxed", "Q: {question}"])
def test_a_chat_does_not_go_into_a_template_for_text(template: str) -> None:
    with pytest.raises(UserError, match=r"set data.template to none or chat, .*prompt.0.content"):
        render_prompt(CHAT, template)


@pytest.mark.parametrize(
    ("template", "system", "message"),
    [
        ("paper8020", None, "did you mean paper_8020?"),
        ("Solve it.", None, r"a text with \{question\}"),
        ("none", "Be brief.", "set data.template=chat"),
        ("qwen_boxed", "Be brief.", "set data.template=chat"),
    ],
)
def test_templates_that_cannot_be(template: str, system: str | None, message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_template(template, system)


def test_two_system_prompts_are_one_too_many() -> None:
    with pytest.raises(UserError, match="a system prompt of their own"):
        render_prompt([{"role": "system", "content": "Be long."}, *CHAT], "chat", "Be brief.")


class Letters:
    """A tokenizer of letters: a text costs one more for the start, a chat message two."""

    chat_template: str | None = "some"

    def __call__(self, texts: list[str], add_special_tokens: bool = True) -> dict[str, Any]:
        return {"input_ids": [[0] * add_special_tokens + [1] * len(text) for text in texts]}

    def apply_chat_template(self, chat: list[dict[str, str]], tokenize: bool, add_generation_prompt: bool) -> str:
        assert (tokenize, add_generation_prompt) == (False, True)
        return "".join(f"<{message['content']}>" for message in chat)


def test_long_prompts_are_left_out_and_counted() -> None:
    problems = [Problem("abc", "1"), Problem([{"role": "user", "content": "ab"}], "2"), Problem("abcdef", "3")]
    assert prompt_lengths(problems, Letters()) == [4, 4, 7]
    assert filter_long(problems, Letters(), 4) == (problems[:2], 1)
    assert filter_long(problems, Letters(), 7) == (problems, 0)
    assert filter_long(problems, None, None) == (problems, 0)
    many = [Problem("a" * (n % 3 + 1), str(n)) for n in range(1500)]
    assert filter_long(many, Letters(), 3) == ([p for p in many if len(p.prompt) < 3], 500)


def test_nothing_left_and_nothing_to_render_with() -> None:
    with pytest.raises(UserError, match=r"none of 1 prompts fits data.max_prompt_tokens=2; the shortest has 4 tokens"):
        filter_long([Problem("abc", "1")], Letters(), 2)
    bare = Letters()
    bare.chat_template = None
    with pytest.raises(UserError, match="no chat template"):
        filter_long([Problem(CHAT, "42")], bare, 99)
