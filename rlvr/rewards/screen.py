"""Answers that are turned away before anything is worked out, each with its reason."""

import re

SEVERAL = "several answers where one is expected"
CHAIN = "a chain of equations"
EQUATION = "an equation that is no assignment"
UNEVALUATED = "not worked out"
TOO_BIG = "too large to work out"
TOO_DEEP = "nested too deep"
UNDEFINED = "undefined"
UNREADABLE = "cannot be read"
EMPTY_GOLD = "the gold answer is empty"
NO_GOLD = "no gold answer was given"
GOLD_UNREADABLE = "the gold answer cannot be read"

_OPERATORS = re.compile(
    r"(?<!_)(?<!_\{)(?:\\(sum|prod|i*int|oint|lim|gcd|lcm|max|min|sup|inf|det|binom)(?![a-zA-Z])"
    r"|(?<![a-zA-Z\\])(gcd|lcm|max|min|sum|lim|det)(?=\s*[({_])|(?<=[\d)}a-zA-Z])\s*(!)(?!=))"
)
_COUNTING = {"!", "binom"}
_LETTER = re.compile(r"(?<![a-zA-Z\\])[a-zA-Z](?![a-zA-Z])")
_BIG_EXPONENT = re.compile(r"\^\s*\{?\s*[-+]?\s*\d{5,}")
_TOWER = re.compile(r"\^\s*\{\s*[-+]?[^{}+]{1,12}\^\s*\{?\s*[-+]?[^{}+]{0,12}\^")


def operators(text: str) -> set[str]:
    """The operators of an answer that ask for work: sums, integrals, limits, greatest; factorials of numbers."""
    found = {next(part for part in match.groups() if part) for match in _OPERATORS.finditer(text)}
    if found & _COUNTING:
        found = (found - _COUNTING) | (set() if _LETTER.search(text) else {"!"})
    return found


def turned_away(answer: str, gold: str) -> str:
    """Why a normalised answer is wrong whatever it is worth; empty if nothing speaks against it."""
    if _TOWER.search(answer) and not _TOWER.search(gold):
        return TOO_BIG
    if _BIG_EXPONENT.search(answer) and not _BIG_EXPONENT.search(gold):
        return TOO_BIG
    allowed = operators(gold) | ({"!"} if "!" in gold or "\\binom" in gold else set())
    if operators(answer) - allowed:
        return UNEVALUATED
    return ""
