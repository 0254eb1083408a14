"""One answer against one gold, both as texts: choices, words, readings of commas, then shapes."""

import re
from collections.abc import Iterator

from rlvr.rewards import screen
from rlvr.rewards.compare import Formulas, Wrong, same
from rlvr.rewards.normalise import compact, normalise
from rlvr.rewards.structure import TooDeep, shape
from rlvr.rewards.words import choice_of, value_of, words_of

Outcome = tuple[str, str]
"""(status, reason)."""

_COMMAS = re.compile(r"(?<![\d,.(\[])(\d{1,3}(?:,\d{3})+)(?![\d,)\]])")
# Where blanks follow the commas of a list, `(1,000, 2)`, a comma without one is of a number.
_TIGHT_COMMAS = re.compile(r"(?<![\d,.])([1-9]\d{0,2}(?:,\d{3})+)(?!\d|,\S)")
_AS_FORMULA = {
    "infinity": "\\infty",
    "-infinity": "-\\infty",
    "all real numbers": "(-\\infty,\\infty)",
    "none": "\\{\\}",
}
_EMPTY = ("\\emptyset", "\\{\\}", "\\{ \\}")
_REALS = ("\\mathbb{R}", "(-\\infty,\\infty)", "\\mathbb R", "x\\in\\mathbb{R}")


def judge(answer: str, gold: str, formulas: Formulas) -> Outcome:
    """The verdict on one answer; `formulas` compares what has to be worked out, and may raise to say it cannot."""
    mine, wanted = normalise(answer), normalise(gold)
    if not wanted:
        return "unparseable", screen.EMPTY_GOLD
    if not mine:
        return "unparseable", screen.UNREADABLE
    if compact(mine) == compact(wanted):
        return "correct", ""
    reason = screen.turned_away(mine, wanted)
    if reason:
        return "wrong", reason
    chosen = _choices(mine, wanted)
    if chosen is not None:
        return chosen
    worded = _worded(mine, wanted)
    if isinstance(worded, bool):
        return ("correct", "") if worded else ("wrong", "")
    return _readings(*worded, formulas)


def _choices(mine: str, wanted: str) -> Outcome | None:
    """A gold that is the letter of a choice is decided by the letter."""
    theirs = choice_of(wanted)
    if theirs is None or (theirs[1] and not wanted.startswith(("(", "\\text"))):
        return None
    ours = choice_of(mine)
    if ours is None:
        return None if theirs[1] else ("wrong", "")
    return ("correct", "") if ours[0] == theirs[0] else ("wrong", "")


def _worded(mine: str, wanted: str) -> bool | tuple[str, str]:
    """Words against words are decided; a word against a formula becomes a formula."""
    words, gold_words = words_of(mine), words_of(wanted)
    if words is not None and gold_words is not None:
        value, gold_value = value_of(words), value_of(gold_words)
        if words == gold_words or (value is not None and value == gold_value):
            return True
        if "\\text" in mine or "\\text" in wanted:
            return False
        return mine, wanted
    return _formula(mine, words), _formula(wanted, gold_words)


def _formula(text: str, words: str | None) -> str:
    bare = compact(text)
    if bare in _EMPTY:
        return "\\{\\}"
    if bare in _REALS:
        return "(-\\infty,\\infty)"
    if words is None:
        return text
    value = value_of(words)
    return str(value) if value is not None else _AS_FORMULA.get(words, text)


def _readings_of(text: str) -> Iterator[str]:
    """`1,234` as one number, and as a list; `(1,000, 2)` with two members, and with three; other texts as they are."""
    readings = [_COMMAS.sub(_without_commas, text)]
    if ", " in text:
        readings.append(_TIGHT_COMMAS.sub(_without_commas, text))
    yield from dict.fromkeys([*readings, text])
    choice = choice_of(text)
    if choice is not None and choice[1] and not choice[1].startswith("("):
        yield choice[1]


def _without_commas(found: re.Match[str]) -> str:
    return found[1].replace(",", "")


def _readings(mine: str, wanted: str, formulas: Formulas) -> Outcome:
    reasons: list[Outcome] = []
    for gold_reading in _readings_of(wanted):
        for reading in _readings_of(mine):
            outcome = _shapes(reading, gold_reading, formulas)
            if outcome[0] == "correct":
                return outcome
            reasons.append(outcome)
    return next((outcome for outcome in reasons if outcome[1]), ("wrong", ""))


def _shapes(mine: str, wanted: str, formulas: Formulas) -> Outcome:
    try:
        gold = shape(wanted)
        answer = shape(mine)
        return ("correct", "") if same(gold, answer, formulas) else ("wrong", "")
    except TooDeep:
        return "wrong", screen.TOO_DEEP
    except Wrong as wrong:
        reason = str(wrong)
        return ("unparseable" if reason in (screen.UNREADABLE, screen.GOLD_UNREADABLE) else "wrong"), reason
