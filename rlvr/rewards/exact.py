"""Decide what needs no algebra: equal texts, numbers, words, and lists of them. No sympy, no unbounded work."""

import re

from rlvr.rewards import screen
from rlvr.rewards.formulas import ExactFormulas, Undecided
from rlvr.rewards.judge import judge

_INTEGER = re.compile(r"[-+]?[0-9]{1,400}")
_FORMULAS = ExactFormulas()


def decide_fast(answer: str, golds: tuple[str, ...]) -> tuple[str, str] | None:
    """The (status, reason) of an answer that can be compared without algebra; None if a worker has to decide."""
    if not golds:
        return "unparseable", screen.NO_GOLD
    if answer in golds and answer:
        return "correct", ""
    if _INTEGER.fullmatch(answer):
        value = int(answer)
        if all(_INTEGER.fullmatch(gold) for gold in golds):
            return ("correct", "") if any(int(gold) == value for gold in golds) else ("wrong", "")
    return _decide(answer, golds)


def _decide(answer: str, golds: tuple[str, ...]) -> tuple[str, str] | None:
    outcomes: list[tuple[str, str]] = []
    open_questions = False
    for gold in golds:
        try:
            outcome = judge(answer, gold, _FORMULAS)
        except (Undecided, RecursionError):  # a worker's stack is its own: no verdict depends on how deep this one is
            open_questions = True
            continue
        if outcome[0] == "correct":
            return outcome
        outcomes.append(outcome)
    if open_questions:
        return None
    return next((outcome for outcome in outcomes if outcome[1]), ("wrong", ""))
