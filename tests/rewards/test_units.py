"""Units after a number: which are put aside, which are compared, which words change the number."""

import time

import pytest

from rlvr.rewards.compare import name_of
from rlvr.rewards.equivalence import decide
from rlvr.rewards.exact import decide_fast
from rlvr.rewards.grade import grade
from rlvr.rewards.policy import DEFAULT
from rlvr.rewards.structure import Node
from rlvr.rewards.units import quantity


def is_right(answer: str, gold: str) -> bool:
    """The verdict of a worker, which the fast path has to share where it has one."""
    status = decide(answer, (gold,), DEFAULT)[0]
    fast = decide_fast(answer, (gold,))
    assert fast is None or fast[0] == status, (answer, gold, fast, status)
    return status == "correct"


@pytest.mark.parametrize(
    "answer",
    [
        r"5\text{ cm}", r"5\text{ apples}", r"5^\circ", r"\$5", r"5\%", r"5 \text{ square units}", "x=5", r"5\text{th}",
        r"5\text{ times}", r"5\text{ ordered pairs}", r"5\text{ two-digit numbers}", r"5\text{ dollars a day}",
        r"5\text{ a day}", r"5\text{ L}", r"5\text{ M}", r"5\text{ h}", r"5\text{ cm squared}", r"5/\text{s}", "5 mph",
        r"5\text{ m/s}^2", r"5\text{ half-lives}", r"5\text{ (five)}", r"5\text{ (B)}", r"5\text{ people in total}",
        r"5\text{ percent}", r"5^\circ\text{C}", r"5\text{ s}^{-1}", r"5\text{ arrangements (with repetition)}",
    ],
)  # fmt: skip
def test_an_ordinary_unit_is_put_aside(answer: str) -> None:
    assert is_right(answer, "5")


@pytest.mark.parametrize(
    "answer",
    [
        r"5\text{ million}", r"5\text{ billion dollars}", r"5\text{ hundred}", r"5\text{ dozen}", "5 million",
        "5 dozen",
        r"5\text{ million}\text{ dollars}", r"5\text{ (in millions)}", r"5\text{ (thousand)}", r"5\text{ in millions}",
        r"5\text{ squared}", r"5\text{ cubed}", r"5\text{ factorial}", r"5\text{ pi}", r"5\text{ \pi}", r"5\text{π}",
        r"5\text{ i}", r"5\text{x}", r"5\text{(x)}", r"5\text{k}", r"5/\text{x}", r"5\text{ halves}", r"5\text{ a}",
        r"5\text{ times x}", r"5\text{ million}^2", "5 million m", r"5\text{ plus x}",
    ],
)  # fmt: skip
def test_a_word_that_changes_the_number_is_no_unit(answer: str) -> None:
    assert not is_right(answer, "5")


@pytest.mark.parametrize(
    ("answer", "gold"),
    [
        (r"5\text{ million}", "5000000"), ("5,000,000", r"5\text{ million}"), ("2500000", r"2.5\text{ million}"),
        (r"2500\text{ thousand dollars}", r"2.5\text{ million dollars}"), (r"3\text{ dozen}", "36"), ("3 dozen", "36"),
        (r"5\text{ hundred thousand}", "500000"), (r"\frac{1}{2}\text{ million}", "500000"), ("three dozen", "36"),
        (r"3\pi\text{ million}", r"3000000\pi"), (r"\text{five billion}", "5000000000"), (r"5\text{ Trillion}", "5e12"),
    ],
)  # fmt: skip
def test_a_word_of_scale_is_a_factor(answer: str, gold: str) -> None:
    assert is_right(answer, gold)
    assert is_right(gold, answer)


@pytest.mark.parametrize(
    ("answer", "gold"),
    [
        (r"5\text{ km}", r"5000\text{ m}"), (r"5000\text{ ml}", r"5\text{ liters}"),
        (r"1\text{ L}", r"1000\text{ cm}^3"),
        ("1 cubic meter", "1000 liters"), ("24 months", "2 years"), ("18 km/h", r"5\text{ m/s}"),
        (r"60\text{ miles per hour}", "60 mph"), (r"9.8\text{ m/s}^2", r"980\text{ cm/s}^2"),
        (r"9\text{ meters per second squared}", r"9\text{ m/s}^2"), (r"12\text{ cm squared}", r"12\text{ sq. cm}"),
        (r"1\text{ mile}", r"1609.344\text{ m}"), (r"1\text{ km}^3", r"10^{18}\text{ mm}^3"),
    ],
)  # fmt: skip
def test_units_of_one_kind_are_converted(answer: str, gold: str) -> None:
    assert is_right(answer, gold)
    assert is_right(gold, answer)


@pytest.mark.parametrize(
    ("answer", "gold"),
    [
        ("5 liters", "5 ml"), (r"3\text{ months}", r"3\text{ years}"), ("5 miles", "5 km"), ("5 km/h", "5 m/s"),
        (r"5\text{ billion}", r"5\text{ million}"), (r"5\text{ kg}", r"5\text{ cm}"),
        (r"5\text{ s}^{-1}", r"5\text{ s}"),
        (r"5\text{ m/s}^2", r"5\text{ m/s}"), (r"5\text{ liters}", r"5\text{ cm}"), (r"5\text{ cm}", r"5\%"),
        (r"5\text{ km}/\text{h}", r"5\text{ m/s}"),
    ],
)  # fmt: skip
def test_other_units_are_other_answers(answer: str, gold: str) -> None:
    assert not is_right(answer, gold)
    assert not is_right(gold, answer)


def test_a_million_to_the_second_power_is_not_taken_apart() -> None:
    assert quantity(r"5 \text{million}^2").value == r"5 \text{million}^2"
    assert quantity(r"5 \text{million km}^2") == quantity("5 million km^2")


@pytest.mark.parametrize(
    "answer",
    [
        r"24 \text{ distinguishable arrangements (with repetition)}", "24 " + "a" * 400 + "?",
        "24 " + "a/b" * 150 + ")",
        "24 " + "ab " * 150 + "?", "24" + r"\text{a}" * 70 + "?", r"24 \text{ " + "(" * 400 + "}",
        "24 " + "m " * 240 + "?",
        "24 " + r"\cdot " * 80 + "?", "24 " + "/" * 480, r"24 \text{ (" + " a" * 200 + "}?", "24 " + "^{-2" * 120,
    ],
)  # fmt: skip
def test_a_long_tail_takes_no_time(answer: str) -> None:
    """The tail is looked for in the asking process, where no deadline ends it."""
    started = time.process_time()
    for gold in ("24", r"5\text{ cm}", "x=2.50"):
        decide_fast(answer, (gold,))
    assert time.process_time() - started < 1.0


def test_a_name_of_many_braces_takes_no_time() -> None:
    started = time.process_time()
    for _ in range(40):
        assert name_of(Node("leaf", "_{}}}" * 11 + "?")) is None
    assert time.process_time() - started < 1.0
    assert name_of(Node("leaf", r"x_{\text{max}}")) == "x_max"


def test_the_long_tail_that_was_found_is_graded_at_once() -> None:
    started = time.process_time()
    assert grade(r"\boxed{24 distinguishable arrangements (with repetition)}", "24", deadline=5.0).status != "correct"
    assert time.process_time() - started < 1.0
