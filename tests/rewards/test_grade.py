"""Verdicts on answers a person can judge."""

import threading

import pytest

from rlvr.rewards.grade import grade, grade_many
from rlvr.rewards.policy import Policy
from rlvr.rewards.verdict import Verdict


@pytest.mark.parametrize(
    ("answer", "gold", "correct"),
    [
        ("15", "15", True),
        ("16", "15", False),
        ("015", "15", True),
        ("+15", "15", True),
        ("-15", "15", False),
        ("15.0", "15", True),
        ("15.000001", "15", False),
        (".5", "0.50", True),
        ("1,234", "1234", True),
        ("12,34", "1234", False),
        ("0.3333333333", r"\frac{1}{3}", False),
        ("2/6", r"\dfrac{1}{3}", True),
        ("0.5", r"-\frac{1}{2}", False),
        (r"-\frac{1}{2}", "-0.5", True),
        ("1/0", "1", False),
        ("15", "$15$", True),
        ("15", "$$15$$", True),
        ("15", r"\(15\)", True),
        ("15", r"\boxed{15}", True),
        ("15", r"The answer is $\boxed{15}$.", True),
        (r"2\sqrt{2}", r"\sqrt{8}", True),
        (r"\sqrt{3}", r"\sqrt{8}", False),
        (r"\frac{\pi}{2}", r"$\pi/2$", True),
        ("x^2-1", "(x-1)(x+1)", True),
        (r"\{2,1\}", r"\{1,2\}", True),
        ("B", "B", True),
    ],
)
def test_correct_or_not(answer: str, gold: str, correct: bool) -> None:
    assert grade(f"Hence \\boxed{{{answer}}}.", gold).correct is correct


def test_more_digits_than_python_reads_as_an_integer() -> None:
    many, policy = "1" * 10_000, Policy(longest=20_000)
    assert grade(f"\\boxed{{{many}}}", many, policy=policy).correct
    assert not grade(f"\\boxed{{{many}}}", many[:-1] + "2", policy=policy).correct
    assert grade(f"\\boxed{{{many[:300]}.0}}", many[:300]).correct


def test_any_of_several_golds() -> None:
    assert grade(r"\boxed{6}", ["5", "6"]).correct
    assert grade(r"\boxed{7}", ["5", "6"]).status == "wrong"


@pytest.mark.parametrize(
    ("completion", "gold", "status"),
    [
        (r"\boxed{15}", "15", "correct"),
        (r"\boxed{14}", "15", "wrong"),
        ("15", "15", "no_answer"),
        (r"\boxed{15", "15", "no_answer"),
        (r"\boxed{}", "15", "unparseable"),
        (r"\boxed{15}", " ", "unparseable"),
        (r"\boxed{15}", [], "unparseable"),
    ],
)
def test_status(completion: str, gold: str | list[str], status: str) -> None:
    verdict = grade(completion, gold)
    assert verdict.status == status
    assert verdict.correct is (status == "correct")
    assert verdict.seconds >= 0


def test_a_truncated_completion_is_wrong_whatever_it_boxed() -> None:
    verdict = grade(r"\boxed{15} but", "15", truncated=True)
    assert (verdict.status, verdict.reason, verdict.extracted) == ("wrong", "truncated", "15")


def test_algebra_in_a_thread() -> None:
    verdicts: list[Verdict] = []
    thread = threading.Thread(target=lambda: verdicts.append(grade(r"\boxed{2\sqrt{2}}", r"\sqrt{8}")))
    thread.start()
    thread.join()
    assert verdicts[0].status == "correct"


def test_grade_many_keeps_the_order() -> None:
    verdicts = grade_many([r"\boxed{1}", r"\boxed{1}", r"\boxed{2}"], ["1", "2", "2"], [False, False, True])
    assert [verdict.correct for verdict in verdicts] == [True, False, False]
    assert [verdict.correct for verdict in grade_many([r"\boxed{1}"], ["1"])] == [True]
    with pytest.raises(ValueError, match="shorter"):
        grade_many(["a", "b"], ["1"])


def test_a_verdict_does_not_contradict_itself() -> None:
    with pytest.raises(ValueError, match="contradicts"):
        Verdict(True, "1", "wrong")
    with pytest.raises(ValueError, match="expected one of"):
        Verdict(False, "1", "maybe")
