"""Grade a completion against a gold answer: the function that both rewards and evaluation call."""

import re
import time
from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction

from rlvr.rewards.extract import last_boxed
from rlvr.rewards.verdict import Verdict

_NUMBER = re.compile(r"[+-]?(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d+)?", re.ASCII)
_FRACTION = re.compile(r"([+-]?)(?:\\[dt]?frac\{(\d{1,99})\}\{(\d{1,99})\}|(\d{1,99})/(\d{1,99}))", re.ASCII)
_MATH_MARKS = (("$$", "$$"), ("$", "$"), ("\\(", "\\)"), ("\\[", "\\]"))
COMPARISON_SECONDS = 5
"""What math-verify may spend on reading one answer, and again on one comparison."""

Outcome = tuple[str, str]
"""(status, reason) of one comparison."""


def grade(completion: str, gold: str | Sequence[str], *, truncated: bool = False) -> Verdict:
    """Compare the last `\\boxed{...}` of a completion with the gold answer.

    Equal texts, integers, decimals (`1,234.50` is `1234.5`) and fractions of integers are decided here, exactly: 0.333
    is not 1/3. Everything else is math-verify's: surds, sets, intervals, algebra, and whatever tolerance it has there.

    Limits: math-verify stops itself with SIGALRM, so this works in a main thread only, and a hostile answer
    (`9^{9^{9^{9}}}`) costs up to `COMPARISON_SECONDS` or, inside one long operation of Python's integers, more.

    Args:
        completion: the whole text that was sampled.
        gold: the right answer, or several of which one has to match; with or without `$...$` or `\\boxed{}`.
        truncated: the completion was cut at the length limit: never correct, whatever it boxed on the way.

    Returns:
        The verdict; an answer that cannot be compared is not correct, and says why.
    """
    started = time.perf_counter()
    extracted = last_boxed(completion)
    status, reason = _judge(extracted, [gold] if isinstance(gold, str) else list(gold), truncated)
    return Verdict(status == "correct", extracted, status, reason, time.perf_counter() - started)


def grade_many(
    completions: Sequence[str], golds: Sequence[str | Sequence[str]], truncated: Sequence[bool] | None = None
) -> list[Verdict]:
    """Grade each completion against its gold, one after the other, with the limits of `grade`.

    Raises:
        ValueError: if the lengths differ.
    """
    cut = [False] * len(completions) if truncated is None else truncated
    rows = zip(completions, golds, cut, strict=True)
    return [grade(completion, gold, truncated=was_cut) for completion, gold, was_cut in rows]


def _judge(extracted: str | None, golds: list[str], truncated: bool) -> Outcome:
    if truncated:
        return "wrong", "truncated"
    if extracted is None:
        return "no_answer", ""
    if not extracted:
        return "unparseable", "the box is empty"
    if not golds:
        return "unparseable", "no gold answer was given"
    worst: Outcome = ("wrong", "")
    for gold in golds:
        outcome = _compare(extracted, _bare(gold))
        if outcome[0] == "correct":
            return outcome
        if outcome[0] != "wrong":
            worst = outcome
    return worst


def _bare(gold: str) -> str:
    """A gold answer without its box or its math marks."""
    boxed = last_boxed(gold)
    text = gold.strip() if boxed is None else boxed
    for left, right in _MATH_MARKS:
        inner = text[len(left) : len(text) - len(right)]
        # `$5$ or $6$` is not one formula in marks.
        if len(text) > len(left) + len(right) and text == left + inner + right and left not in inner:
            return inner.strip()
    return text


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


def _compare(extracted: str, gold: str) -> Outcome:
    if not gold:
        return "unparseable", "the gold answer is empty"
    if extracted == gold:
        return "correct", ""
    mine, theirs = _number(extracted), _number(gold)
    if mine is not None and theirs is not None:
        return ("correct", "") if mine == theirs else ("wrong", "")
    return _math_verify(extracted, gold)


def _math_verify(extracted: str, gold: str) -> Outcome:
    # Imported here: it loads sympy, a second that a run on plain numbers need not spend.
    from math_verify import parse, verify
    from math_verify.errors import TimeoutException

    try:
        limits = {"parsing_timeout": COMPARISON_SECONDS, "raise_on_error": True}
        parsed_gold = parse(f"\\boxed{{{gold}}}", **limits)
        parsed_answer = parse(f"\\boxed{{{extracted}}}", **limits)
        if not parsed_gold or not parsed_answer:
            return "unparseable", f"math-verify cannot read the {'answer' if parsed_gold else 'gold answer'}"
        same = verify(parsed_gold, parsed_answer, timeout_seconds=COMPARISON_SECONDS, raise_on_error=True)
    except TimeoutException:
        return "timeout", f"math-verify took more than {COMPARISON_SECONDS} s"
    except Exception as error:  # whatever sympy raises on a strange answer is that answer's verdict, not the run's end
        return "crash", f"{type(error).__name__}: {error}".splitlines()[0][:200]
    return ("correct", "") if same else ("wrong", "")
