"""Compare formulas by their values, to many digits and at many points. For a worker process: bounded, not instant.

Loads math-verify, and so sympy, at once: a worker forked later must not spend its deadline on that.
"""

import logging
import random
import re
from collections.abc import Iterator, Sequence
from fractions import Fraction
from functools import lru_cache
from typing import Any

from math_verify import LatexExtractionConfig, parse, verify
from mpmath.ctx_mp import MPContext

from rlvr.rewards import screen
from rlvr.rewards.compare import Wrong
from rlvr.rewards.expression import Tree
from rlvr.rewards.formulas import ExactFormulas, half_unit, parsed, scales
from rlvr.rewards.policy import Policy
from rlvr.rewards.units import Quantity
from rlvr.rewards.values import TooBig, Undefined, Value, evaluate, real

logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns that it has no deadline: the pool has one

_POINTS = {"near": 5, "negative": 5, "wide": 20, "whole": 30}
"""How many points are tried: fractions around 1, around -1, fractions up to 100, and whole numbers."""

_INTEGER_FUNCTIONS = ("floor", "ceil", "factorial", "binom")
_LOG_10 = re.compile(r"\\log\s*_\s*\{?\s*10")
_LOG = re.compile(r"\\log(?![a-z])(?!\s*_)")
_SPARE = 12
"""Digits that rounding may cost."""


def letters(tree: Tree) -> set[str]:
    """The names of the letters in a formula."""
    if tree[0] == "sym":
        return {tree[1]}
    return {name for part in tree[1:] if isinstance(part, tuple) for name in letters(part)}


def functions(tree: Tree) -> set[str]:
    """The names of the functions in a formula."""
    own = {tree[1]} if tree[0] == "fn" else set()
    return own.union(*(functions(part) for part in tree[1:] if isinstance(part, tuple)))


def _digits(tree: Tree) -> int:
    if tree[0] == "num":
        return len(tree[1])
    return max([_digits(part) for part in tree[1:] if isinstance(part, tuple)], default=0)


@lru_cache(maxsize=4096)
def _letter_value(name: str, point: int, where: str) -> Fraction:
    """A value for a letter at a point: the same in every process, and alike for both sides of a comparison."""
    if where == "whole":  # each of 1 to 30 once, in an order of the letter's own
        order = list(range(1, _POINTS[where] + 1))
        random.Random(name).shuffle(order)
        return Fraction(order[point])
    value = Fraction(random.Random(f"{name}/{point}").randint(3000, 25000), 10007)
    return value * {"wide": 40, "negative": -1}.get(where, 1)


def context(*trees: Tree) -> Any:
    """An mpmath context with digits to spare for these formulas."""
    mp = MPContext()
    mp.dps = 40 + _SPARE + max(_digits(tree) for tree in trees)
    return mp


def equal(one: Value, other: Value, mp: Any) -> bool:
    """Whether two values are the same to all digits that count."""
    if isinstance(one, Fraction) and isinstance(other, Fraction):
        return one == other
    left, right = real(one, mp), real(other, mp)
    if mp.isinf(left) or mp.isinf(right):
        return bool(left == right)
    size = max(abs(left), abs(right))
    if left == 0 or right == 0:
        size = mp.mpf(1)
    return bool(abs(left - right) <= size * mp.mpf(10) ** (_SPARE - mp.dps))


def values(trees: Sequence[Tree], where: str, mp: Any) -> Iterator[list[Value]]:
    """The values of some formulas at a few points; points where one has none are left out."""
    names = sorted(set().union(*(letters(tree) for tree in trees)))
    for point in range(_POINTS[where] if names else 1):
        env = {name: _letter_value(name, point, where) for name in names}
        try:
            yield [evaluate(tree, env, mp) for tree in trees]
        except (Undefined, ZeroDivisionError, ValueError, OverflowError):
            if not names:
                raise Wrong(screen.UNDEFINED) from None
        except TooBig:
            raise Wrong(screen.TOO_BIG) from None


class Formulas(ExactFormulas):
    """Decides what mpmath can, and asks math-verify about what this grammar cannot read."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy

    def harder(self, gold: Quantity, mine: Quantity) -> bool:
        """Two formulas of which one is not rational."""
        text = _LOG.sub(r"\\log_{10}", mine.value) if _LOG_10.search(gold.value) else mine.value
        wanted, tree = parsed(gold.value), parsed(text)
        if wanted is None or tree is None:
            return _ask_math_verify(gold.value, mine.value, wanted is None, tree is None)
        for factor in scales(gold, mine):
            scaled = tree if factor == 1 else ("mul", tree, ("num", str(factor.numerator)))
            if factor.denominator != 1:
                scaled = ("div", scaled, ("num", str(factor.denominator)))
            if self._same_trees(gold.value, wanted, scaled):
                return True
        return self._in_degrees(gold, wanted, mine, tree)

    def _in_degrees(self, gold: Quantity, wanted: Tree, mine: Quantity, tree: Tree) -> bool:
        """`30^\\circ` is pi/6: an angle in degrees against one with pi in it."""
        if gold.unit == "degree" and not mine.unit and "pi" in mine.value:
            return self._same_trees(gold.value, ("deg", wanted), tree)
        if mine.unit == "degree" and not gold.unit and "pi" in gold.value:
            return self._same_trees(gold.value, wanted, ("deg", tree))
        return False

    def _same_trees(self, gold: str, wanted: Tree, tree: Tree) -> bool:
        if letters(wanted) | letters(tree):
            return _same_function(wanted, tree)
        mp = context(wanted, tree)
        theirs, ours = next(values((wanted, tree), "near", mp))
        return equal(theirs, ours, mp) or self._close(gold, theirs, ours, mp)

    def _close(self, gold: str, theirs: Value, ours: Value, mp: Any) -> bool:
        """Whether a value rounds to a measured gold, or is within the tolerance that the policy allows."""
        distance, half, tolerance = (
            abs(real(theirs, mp) - real(ours, mp)),
            half_unit(gold),
            self.policy.relative_tolerance,
        )
        if half is not None and distance <= real(half, mp):
            return True
        return tolerance is not None and bool(distance <= abs(real(theirs, mp)) * tolerance)

    def rounds(self, gold: str, wanted: Fraction, value: Fraction, factors: list[Fraction]) -> bool:
        """Whether a value rounds to a measured gold, or is within the tolerance that the policy allows."""
        tolerance = self.policy.relative_tolerance
        if tolerance is not None and any(abs(value * factor - wanted) <= abs(wanted) * tolerance for factor in factors):
            return True
        return super().rounds(gold, wanted, value, factors)

    def near(self, one: str, other: str) -> bool:
        """Whether one formula is a rounding of the other."""
        left, right = parsed(one), parsed(other)
        if left is None or right is None or letters(left) | letters(right):
            return False
        mp = context(left, right)
        first, second = (real(value, mp) for value in next(values((left, right), "near", mp)))
        return bool(abs(first - second) <= max(abs(first), abs(second)) / 50)

    def same_relation(self, gold: Sequence[str], mine: Sequence[str], positive: bool) -> bool:
        """Whether the difference of the sides is the same, up to a constant factor."""
        trees = [parsed(text) for text in (*gold, *mine)]
        if any(tree is None for tree in trees):
            return False
        left, right = (("add", a, ("neg", b)) for a, b in (trees[:2], trees[2:]))
        if not letters(left) or not letters(right):
            return False
        mp = context(left, right)
        factors = []
        for theirs, ours in values((left, right), "near", mp):
            first, second = real(theirs, mp), real(ours, mp)
            if not first or not second:
                return False
            factors.append(second / first)
        constant = len(factors) > 1 and all(equal(factor, factors[0], mp) for factor in factors)
        return constant and (not positive or (mp.im(factors[0]) == 0 and mp.re(factors[0]) > 0))


def _same_function(wanted: Tree, tree: Tree) -> bool:
    """Whether two formulas with letters agree at every point tried; at whole numbers if both are about those."""
    mp = context(wanted, tree)
    theirs, ours = (functions(side).intersection(_INTEGER_FUNCTIONS) for side in (wanted, tree))
    places = ["wide" if {"floor", "ceil"} & (theirs | ours) else "near"] + (["whole"] if theirs and ours else [])
    if not any(_agree(wanted, tree, where, mp) for where in places):
        return False
    # Letters count as positive, as in most answers; but |x| is there to say that x need not be.
    one_sided = ("abs" in functions(wanted)) != ("abs" in functions(tree))
    return not one_sided or _agree(wanted, tree, "negative", mp)


def _agree(wanted: Tree, tree: Tree, where: str, mp: Any) -> bool:
    """Whether two formulas have the same value wherever both have one, at two points at least."""
    pairs = list(values((wanted, tree), where, mp))
    return len(pairs) > 1 and all(equal(one, other, mp) for one, other in pairs)


def _ask_math_verify(gold: str, mine: str, gold_unread: bool, mine_unread: bool) -> bool:
    """What this grammar cannot read, math-verify may: integrals, sets of points, unusual commands."""
    odd = any(sign in mine for sign in "\"'`;?#@&~=") or not mine.isascii()
    if odd or any(part in mine + gold for part in ("\\text", "...")):
        raise Wrong(screen.UNREADABLE if mine_unread else screen.GOLD_UNREADABLE)
    config = (LatexExtractionConfig(boxed_match_priority=0, try_extract_without_anchor=False),)
    trees = [
        parse(f"\\boxed{{{text}}}", extraction_config=config, parsing_timeout=None, fallback_mode="no_fallback")
        for text in (gold, mine)
    ]
    if not trees[1]:
        raise Wrong(screen.UNREADABLE)
    if not trees[0]:
        raise Wrong(screen.GOLD_UNREADABLE)
    return bool(verify(trees[0], trees[1], float_rounding=12, timeout_seconds=None))
