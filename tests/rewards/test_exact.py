"""The fast path: what it decides, what it leaves alone, how quick it is."""

import subprocess
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlvr.rewards.exact import decide_fast

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
