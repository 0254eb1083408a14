"""Compare single formulas: exactly where both are rational, else by their values at many digits."""

import re
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from functools import lru_cache

from rlvr.rewards import screen
from rlvr.rewards.compare import Wrong
from rlvr.rewards.expression import Tree, read
from rlvr.rewards.normalise import compact
from rlvr.rewards.tokens import Unreadable
from rlvr.rewards.units import Quantity, letter_unit, quantity, ratio
from rlvr.rewards.values import NotRational, TooBig, Undefined, exact

_MEASURED = re.compile(
    r"[-+]?(\d+(?:\.\d*)?|\.\d+)(?:[eE]([-+]?\d{1,4})|\s*(?:\\times|\\cdot|\*)\s*10\s*\^\s*(?:\{\s*([-+]?\d{1,4})\s*\}|(\d)))?"
)


class Undecided(Exception):
    """Only a worker can compare these two."""


@lru_cache(maxsize=8192)
def parsed(text: str) -> Tree | None:
    """The tree of a formula; None if it cannot be read.

    Raises:
        RecursionError: where the stack is too short for it. Not kept: a shorter stack of the caller may do.
    """
    try:
        return read(text)
    except Unreadable:
        return None


@lru_cache(maxsize=8192)
def rational(text: str) -> Fraction | None:
    """The exact value of a formula of rational numbers; None for any other.

    Raises:
        Wrong: if it has no value, or one too large to work out.
        RecursionError: as `parsed`.
    """
    tree = parsed(text)
    if tree is None:
        return None
    try:
        return exact(tree)
    except NotRational:
        return None
    except TooBig:
        raise Wrong(screen.TOO_BIG) from None
    except Undefined:
        raise Wrong(screen.UNDEFINED) from None


def half_unit(text: str) -> Fraction | None:
    r"""Half a unit in the last figure of a measured gold: three figures with a point, or two with a power of ten."""
    found = _MEASURED.fullmatch(text)
    if found is None:
        return None
    digits, exponent = found[1], found[2] or found[3] or found[4]
    whole, point, decimals = digits.partition(".")
    figures = len((whole + decimals).lstrip("0"))
    if (figures < 2 or not point) if exponent else (not point or figures < 3):
        return None
    return Fraction(1, 2) / 10 ** len(decimals) * Fraction(10) ** int(exponent or 0)


def is_arithmetic(tree: Tree) -> bool:
    """Whether a tree adds or multiplies numbers that someone could have worked out: `2+2`, `2 \\cdot 3`."""
    kind = tree[0]
    parts = [part for part in tree[1:] if isinstance(part, tuple)]
    if kind == "mul" and tree[2][0] == "pow" and tree[2][1] == ("num", "10") and tree[1][0] in ("num", "neg"):
        return False  # 3 \times 10^8
    if kind in ("add", "mul") and all(_is_number(part) for part in parts):
        return True
    return kind != "mixed" and any(is_arithmetic(part) for part in parts)


def _is_number(tree: Tree) -> bool:
    return tree[0] not in ("sym", "const", "fn", "deg") and all(
        _is_number(part) for part in tree[1:] if isinstance(part, tuple)
    )


def scales(gold: Quantity, mine: Quantity) -> list[Fraction]:
    """What a value may be multiplied with before it is compared: for percents, units of one kind and words of scale."""
    factors = [ratio(mine, gold)]
    if "%" in (mine.unit, gold.unit) and not (mine.unit and gold.unit):
        factors.append(Fraction(1, 100) if mine.unit else Fraction(100))
    return [factor * mine.scale / gold.scale for factor in factors if factor is not None]


class ExactFormulas:
    """Decides what takes no more than fractions; raises `Undecided` for the rest."""

    def same(self, gold: str, mine: str) -> bool:
        """Whether two formulas have the same value."""
        if compact(gold) == compact(mine):
            return True
        theirs, ours = quantity(gold), quantity(mine)
        wanted, value = rational(theirs.value), rational(ours.value)
        if wanted is not None and value is None:
            inner = quantity(letter_unit(ours.value))
            ours = replace(ours, value=inner.value, scale=ours.scale * inner.scale)
            value = rational(ours.value)
        if wanted is None or value is None:
            return self.harder(theirs, ours)
        factors = scales(theirs, ours)
        if theirs.value != ours.value:
            self.worked_out(theirs.value, ours.value)
        return any(value * factor == wanted for factor in factors) or self.rounds(theirs.value, wanted, value, factors)

    def worked_out(self, gold: str, mine: str) -> None:
        """Refuse arithmetic that the gold does not have."""
        tree, wanted = parsed(mine), parsed(gold)
        if tree is not None and is_arithmetic(tree) and not (wanted is not None and is_arithmetic(wanted)):
            raise Wrong(screen.UNEVALUATED)

    def rounds(self, gold: str, wanted: Fraction, value: Fraction, factors: list[Fraction]) -> bool:
        """Whether a value rounds to a measured gold."""
        half = half_unit(gold)
        return half is not None and any(abs(value * factor - wanted) <= half for factor in factors[:1])

    def harder(self, gold: Quantity, mine: Quantity) -> bool:
        """Two formulas of which one is not rational."""
        raise Undecided

    def near(self, one: str, other: str) -> bool:
        """Whether one formula is a rounding of the other."""
        left, right = rational(one), rational(other)
        if left is None or right is None:
            raise Undecided
        return abs(left - right) <= max(abs(left), abs(right)) / 50

    def same_relation(self, gold: Sequence[str], mine: Sequence[str], positive: bool) -> bool:
        """Relations are a worker's."""
        raise Undecided
