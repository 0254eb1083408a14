"""The last box that closes is the answer."""

import time

import pytest

from rlvr.rewards.extract import last_boxed


@pytest.mark.parametrize(
    ("text", "content"),
    [
        (r"so \boxed{12}", "12"),
        (r"7+8=15\boxed{15}", "15"),
        (r"\boxed{1}, no, \boxed{2}.", "2"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{ 5 }", "5"),
        (r"\boxed {5}", "5"),
        (r"\boxed{3} and \boxed{4", "3"),
        (r"\boxed{\boxed{4}}", "4"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed{\left\{ 1", None),
        (r"{ \boxed{6} } }", "6"),
        (r"\\boxed{7}", "7"),
        (r"\boxed{a \\{b}}", r"a \\{b}"),
        (r"\boxed{}", ""),
        (r"\fbox{3}", None),
        ("42", None),
        ("", None),
    ],
)
def test_last_boxed(text: str, content: str | None) -> None:
    assert last_boxed(text) == content


def test_cost_grows_with_the_text_and_not_with_its_square() -> None:
    started = time.perf_counter()
    assert last_boxed("\\boxed{" * 100_000) is None
    assert time.perf_counter() - started < 2.0
