"""The fast path: what it decides, what it leaves alone, how quick it is."""

import subprocess
import sys
import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlvr.rewards.equivalence import decide
from rlvr.rewards.exact import decide_fast
from rlvr.rewards.grade import grade
from rlvr.rewards.policy import DEFAULT
from rlvr.rewards.screen import TOO_DEEP

NUMBERS = st.one_of(
    st.integers(-10_000, 10_000).map(str),
    st.decimals(-100, 100, places=2).map(str),
    st.tuples(st.integers(-50, 50), st.integers(1, 50)).map(lambda pair: f"{pair[0]}/{pair[1]}"),
    st.tuples(st.integers(1, 50), st.integers(1, 50)).map(lambda pair: f"\\frac{{{pair[0]}}}{{{pair[1]}}}"),
)


@pytest.mark.parametrize(
    ("answer", "gold", "right"),
    [
        ("17", "17", True), ("017", "17", True), ("+17", "17", True), ("17.0", "17", True), ("17.0000001", "17", False),
        ("71", "17", False), ("-17", "17", False), (".5", "0.50", True), ("1,234", "1234", True),
        ("12,34", "1234", False),
        ("2/6", r"\dfrac{1}{3}", True), ("0.3333", r"\frac13", False), ("7, 8", "8,7", True), ("7", "7,8", False),
        (r"\text{Yes}", "yes", True), (r"(7, 8)", "(7,8)", True), ("123456789012345679", "123456789012345678", False),
    ],
)  # fmt: skip
def test_decided(answer: str, gold: str, right: bool) -> None:
    verdict = decide_fast(answer, (gold,))
    assert verdict is not None
    assert (verdict[0] == "correct") is right


@pytest.mark.parametrize(
    ("answer", "gold"), [(r"\sqrt{8}", r"2\sqrt{2}"), ("x+1", "1+x"), ("3.14", r"\pi"), ("y=x", "x-y=0")]
)
def test_left_to_a_worker(answer: str, gold: str) -> None:
    assert decide_fast(answer, (gold,)) is None


def test_no_gold_and_several() -> None:
    assert decide_fast("1", ()) == ("unparseable", "no gold answer was given")
    assert decide_fast("2", ("1", "2")) == ("correct", "")
    assert decide_fast("3", ("1", "2")) == ("wrong", "")
    assert decide_fast("1", ("x", "1")) == ("correct", "")
    assert decide_fast("2", ("x", "1")) is None


@given(NUMBERS, NUMBERS)
def test_numbers_are_symmetric(one: str, other: str) -> None:
    verdict, mirrored = decide_fast(one, (other,)), decide_fast(other, (one,))
    assert verdict is not None
    assert mirrored is not None
    assert (verdict[0] == "correct") == (mirrored[0] == "correct")


@given(NUMBERS, NUMBERS, st.sampled_from([" ", "  ", "\n", r"\ ", "~"]))
def test_blanks_around_change_nothing(answer: str, gold: str, blank: str) -> None:
    assert decide_fast(answer, (gold,)) == decide_fast(blank + answer + blank, (gold,))


def _at_depth(frames: int, call: Callable[[], tuple[str, str] | None]) -> tuple[str, str] | None:
    return call() if frames <= 0 else _at_depth(frames - 1, call)


def _frames_left() -> int:
    frame, used = sys._getframe(), 0
    while frame is not None:
        frame, used = frame.f_back, used + 1
    return sys.getrecursionlimit() - used


@pytest.mark.parametrize("answer", ["a" * 505, "x" + "!" * 501, "x^" + "-" * 505 + "1"])
def test_a_tree_too_deep_for_the_stack_is_a_workers_and_wrong(answer: str) -> None:
    assert decide_fast(answer, ("5",)) is None
    assert decide_fast(answer, ("7", "5")) is None
    assert decide(answer, ("5",), DEFAULT) == ("wrong", TOO_DEEP)
    assert grade(f"\\boxed{{{answer}}}", "5").status in ("wrong", "unparseable")


def test_a_deep_caller_leaves_no_trace() -> None:
    """What a full stack cannot decide is a worker's, and is not remembered as unreadable."""
    answer, gold = "((((((((81))))))))/9", "18/2"
    outcomes = {_at_depth(_frames_left() - left, lambda: decide_fast(answer, (gold,))) for left in range(40, 200, 5)}
    assert outcomes == {None, ("correct", "")}
    assert decide_fast(answer, (gold,)) == ("correct", "")


def test_a_deep_caller_gets_the_same_verdict() -> None:
    verdicts = [
        _at_depth(_frames_left() - left, lambda: (grade(r"\boxed{((((((81))))))/9}", "36/4").status, ""))
        for left in (900, 150, 100)
    ]
    assert verdicts == [("correct", "")] * 3


def test_integers_are_quick() -> None:
    started = time.perf_counter()
    for number in range(50_000):
        decide_fast(str(number), ("271",))
    assert time.perf_counter() - started < 1.5  # a third of this on an idle core


def test_no_algebra_is_loaded() -> None:
    code = (
        "import sys; from rlvr.rewards import exact, extract, forms; exact.decide_fast('x', ('y',)); "
        "sys.exit(bool({'sympy', 'mpmath', 'math_verify', 'torch'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
