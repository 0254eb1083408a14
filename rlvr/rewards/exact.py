"""Decide what needs no algebra: equal texts, integers, decimals, simple fractions. No sympy."""

import re
from decimal import Decimal
from fractions import Fraction

_NUMBER = re.compile(r"[+-]?(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d+)?", re.ASCII)
_FRACTION = re.compile(r"([+-]?)(?:\\[dt]?frac\{(\d{1,99})\}\{(\d{1,99})\}|(\d{1,99})/(\d{1,99}))", re.ASCII)


def decide_fast(answer: str, golds: tuple[str, ...]) -> tuple[str, str] | None:
    """The (status, reason) of an answer that can be compared without algebra; None if a worker has to decide."""
    if not golds:
        return "unparseable", "no gold answer was given"
    if answer in golds:
        return "correct", ""
    mine = _number(answer)
    if mine is None:
        return None
    theirs = [_number(gold) for gold in golds]
    if mine in theirs:
        return "correct", ""
    return None if None in theirs else ("wrong", "")


def _number(text: str) -> Decimal | Fraction | None:
    """An integer, a decimal or a fraction of integers, exactly; None for anything else."""
    if text.strip("+-") and _NUMBER.fullmatch(text):
        return Decimal(text.replace(",", ""))  # takes any number of digits, which `int` refuses
    fraction = _FRACTION.fullmatch(text)
    if fraction is None:
        return None
    sign, *digits = fraction.groups()
    top, bottom = (int(part) for part in digits if part is not None)
    return Fraction(-top if sign == "-" else top, bottom) if bottom else None
