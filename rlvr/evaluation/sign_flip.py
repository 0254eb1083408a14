"""The sign-flip test: if two checkpoints are alike, the difference on a problem is as often d as -d.

Fisher's permutation test for pairs (1935). The statistic is the sum of the differences; the p-value is two-sided: the
share of the 2^N sign patterns whose sum is at least as far from 0 as the observed one.
"""

from collections.abc import Iterator
from math import gcd, lcm

import numpy as np

MOST_SUMS = 2_000_000
"""Entries of the table of sums up to which the test is exact for values with denominators."""
MOST_ENUMERATED = 20
"""Differences other than 0 up to which every sign pattern is tried."""
CHUNK = 500
"""Sign patterns drawn at once."""
ROUNDING = 1e-12
"""Sums closer than this, as a share of the sum of |d|, are equal: a tie counts as far."""


def sign_flip_p(
    differences: np.ndarray,
    *,
    denominators: int | np.ndarray | None = None,
    seed: int = 0,
    flips: int = 100_000,
) -> tuple[float, str]:
    """Two-sided p-value of the sign-flip test.

    Args:
        differences: (N,).
        denominators: whole numbers, one or (N,), that make the differences whole: samples of a problem for avg@n.
            Then the distribution of the sum is computed exactly, for any N.
        seed: for the patterns drawn where neither that nor enumeration is possible.
        flips: how many patterns are drawn then; the p-value is (b + 1) / (flips + 1) (Phipson and Smyth 2010).

    Returns:
        (p-value, how it was computed).

    Raises:
        ValueError: differences that the denominators do not make whole.
    """
    moving = differences[differences != 0]
    if denominators is not None:
        whole = whole_numbers(differences, denominators)
        if whole is not None:
            return exact_integer_p(whole), "sign flips, exact"
    if moving.size <= MOST_ENUMERATED:
        return enumerated_p(moving), "sign flips, exact"
    return drawn_p(moving, seed, flips), f"sign flips, {flips} drawn"


def whole_numbers(differences: np.ndarray, denominators: int | np.ndarray) -> np.ndarray | None:
    """The differences times their common denominator, divided by their greatest common divisor.

    Args:
        differences: (N,).
        denominators: one or (N,) whole numbers.

    Returns:
        (N,) int64, or None where the table of their sums would be too large.

    Raises:
        ValueError: a denominator that is not a positive whole number, or does not make its difference whole.
    """
    given = np.broadcast_to(np.asarray(denominators), differences.shape)
    if not np.issubdtype(given.dtype, np.integer) or given.min() < 1:
        raise ValueError(
            f"denominators are {denominators}; expected whole numbers of at least 1, the samples a problem"
        )
    scaled = differences * given
    if np.abs(scaled - np.rint(scaled)).max() > 1e-6:
        raise ValueError("differences are no multiples of 1 / denominators; give the samples a problem, or None")
    common = lcm(*np.unique(given).tolist())
    # Python's integers: a common denominator of many different ones may be large.
    exact = [int(part) * (common // int(below)) for part, below in zip(np.rint(scaled), given, strict=True)]
    divisor = gcd(*exact)
    if not divisor:
        return np.zeros(len(exact), np.int64)
    if sum(map(abs, exact)) // divisor > MOST_SUMS:
        return None
    return np.array([part // divisor for part in exact], np.int64)


def exact_integer_p(differences: np.ndarray) -> float:
    """The test for whole differences: the distribution of the sum, one difference after the other.

    The sum under a pattern is 2 W - T, where T is the sum of |d| and W the sum of |d| over the plus signs. W is a
    sum of independent terms, 0 or |d| with probability 1/2 each. All terms are positive, so small p-values keep
    their relative accuracy.

    Args:
        differences: (N,) whole numbers.

    Returns:
        The p-value; 1 where all differences are 0.
    """
    sizes = np.sort(np.abs(differences[differences != 0]))
    total = int(sizes.sum())
    chances = np.zeros(total + 1)
    chances[0] = 1.0
    reach = 1
    for size in sizes.tolist():
        before = chances[:reach] / 2
        chances[:reach] = before
        chances[size : size + reach] += before
        reach += size
    far = np.abs(2 * np.arange(total + 1) - total) >= abs(int(differences.sum()))
    return min(1.0, float(chances[far].sum()))


def enumerated_p(differences: np.ndarray) -> float:
    """The test by all sign patterns.

    Args:
        differences: (N,) numbers other than 0, few.

    Returns:
        The p-value; 1 without differences.
    """
    sums = np.zeros(1)
    for difference in np.abs(differences):
        sums = np.concatenate([sums - difference, sums + difference])
    return float((np.abs(sums) >= _far(differences)).mean())


def drawn_p(differences: np.ndarray, seed: int, flips: int) -> float:
    """The test by sign patterns drawn at random, the observed one among them.

    Args:
        differences: (N,).
        seed: of the patterns.
        flips: how many.

    Returns:
        (b + 1) / (flips + 1).
    """
    limit = _far(differences)
    beyond = sum(
        int((np.abs(signs @ differences) >= limit).sum()) for signs in sign_patterns(differences.size, seed, flips)
    )
    return (beyond + 1) / (flips + 1)


def sign_patterns(problems: int, seed: int, flips: int) -> Iterator[np.ndarray]:
    """Random signs, a chunk at a time.

    Args:
        problems: N.
        seed: equal seeds give equal signs.
        flips: patterns in all, at least 1.

    Yields:
        (M, N) of -1.0 and 1.0.

    Raises:
        ValueError: no flips.
    """
    if flips < 1:
        raise ValueError(f"flips is {flips}; expected at least 1")
    rng = np.random.default_rng(seed)
    for start in range(0, flips, CHUNK):
        yield rng.integers(0, 2, (min(CHUNK, flips - start), problems), dtype=np.int8) * 2.0 - 1.0


def _far(differences: np.ndarray) -> float:
    """The observed |sum|, less rounding."""
    return abs(float(differences.sum())) - ROUNDING * float(np.abs(differences).sum())
