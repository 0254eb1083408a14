"""Sums like `7+4*2-3`: text to numbers and back, their value, and what happens when any adjacent pair goes first."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from functools import lru_cache

OPERATORS: dict[str, Callable[[int, int], int]] = {"+": operator.add, "-": operator.sub, "*": operator.mul}
Expression = tuple[tuple[int, ...], tuple[str, ...]]
"""(k numbers, k - 1 operators between them)."""


def parse(text: str) -> Expression:
    """Read `7+4*2-3`, with or without a closing `=`.

    Raises:
        ValueError: if the text is not whole numbers joined by + - *.
    """
    body = text.removesuffix("=")
    if not re.fullmatch(r"[0-9]+(?:[-+*][0-9]+)*", body):
        raise ValueError(f"{text!r} is no expression; expected whole numbers joined by + - *, e.g. 7+4*2-3=")
    return tuple(int(number) for number in re.findall(r"[0-9]+", body)), tuple(re.findall(r"[-+*]", body))


def render(expression: Expression) -> str:
    """The text of an expression, without spaces and without `=`."""
    numbers, operators = expression
    return str(numbers[0]) + "".join(f"{symbol}{number}" for symbol, number in zip(operators, numbers[1:], strict=True))


def reduce_pair(expression: Expression, pair: int) -> Expression:
    """Replace the numbers `pair` and `pair + 1` (from 0) by their result; whether that is legal is not asked."""
    numbers, operators = expression
    result = OPERATORS[operators[pair]](numbers[pair], numbers[pair + 1])
    return (*numbers[:pair], result, *numbers[pair + 2 :]), operators[:pair] + operators[pair + 1 :]


def right_pair(expression: Expression) -> int:
    """The pair that the rules of arithmetic take next: the first product, else the first pair."""
    _, operators = expression
    return operators.index("*") if "*" in operators else 0


def value(expression: Expression) -> int:
    """The value by the rules of arithmetic."""
    while expression[1]:
        expression = reduce_pair(expression, right_pair(expression))
    return expression[0][0]


@lru_cache(maxsize=100_000)
def outcomes(expression: Expression, largest: int) -> tuple[tuple[int, float], ...] | None:
    """Where a solver ends that picks the next pair at random, each with the same chance.

    Args:
        expression: the expression to start from.
        largest: the largest number that may appear.

    Returns:
        (final number, probability) pairs; None if some order of reduction meets a number below 0 or above `largest`.
    """
    numbers, operators = expression
    if not operators:
        return ((numbers[0], 1.0),) if 0 <= numbers[0] <= largest else None
    chances: dict[int, float] = {}
    for pair in range(len(operators)):
        smaller = reduce_pair(expression, pair)
        # Checked before recursing: a product may bring a number back into range, and the solver would still meet it.
        if not 0 <= smaller[0][pair] <= largest:
            return None
        ends = outcomes(smaller, largest)
        if ends is None:
            return None
        for end, chance in ends:
            chances[end] = chances.get(end, 0.0) + chance / len(operators)
    return tuple(sorted(chances.items()))


@lru_cache(maxsize=100_000)
def ends(numbers: tuple[int, ...], operators: tuple[str, ...], largest: int) -> frozenset[int] | None:
    """The final numbers of `outcomes` without their probabilities, in a fraction of its time.

    Every first step is looked at before any second one, so that most expressions without an answer cost little.

    Args:
        numbers: k of them.
        operators: k - 1, at least one.
        largest: the largest number that may appear.

    Returns:
        Where the orders of reduction end; None if one meets a number below 0 or above `largest`.
    """
    results = []
    for symbol, left, right in zip(operators, numbers, numbers[1:], strict=False):
        result = OPERATORS[symbol](left, right)
        if not 0 <= result <= largest:
            return None
        results.append(result)
    if len(results) == 1:
        return frozenset(results)
    reached: set[int] = set()
    for pair, result in enumerate(results):
        smaller = (*numbers[:pair], result, *numbers[pair + 2 :])
        found = ends(smaller, operators[:pair] + operators[pair + 1 :], largest)
        if found is None:
            return None
        reached |= found
    return frozenset(reached)
