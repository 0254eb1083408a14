"""Two checkpoints on the same problems, or many against one: differences problem by problem."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, sqrt

import numpy as np

from rlvr.evaluation.intervals import (
    check_confidence,
    checked_values,
    effective_problems,
    strata_members,
    variance_of_mean,
    with_spread,
)
from rlvr.evaluation.sign_flip import ROUNDING, sign_flip_p, sign_patterns
from rlvr.evaluation.student import t_quantile

FEW_DIFFERENCES = 8.0
"""Effective number of differing problems up to which two all-or-nothing problems are added; chosen by simulation."""


@dataclass(frozen=True)
class Paired:
    """A difference of two checkpoints.

    Attributes:
        difference: mean over problems of b - a.
        low: lower limit of its interval.
        high: upper limit.
        p_value: two-sided, of "the two are alike".
        problems: N.
        method: how the p-value was computed.
    """

    difference: float
    low: float
    high: float
    p_value: float
    problems: int
    method: str


def paired_difference(
    a: np.ndarray,
    b: np.ndarray,
    *,
    strata: np.ndarray | None = None,
    denominators: int | np.ndarray | None = None,
    confidence: float = 0.95,
    bounds: tuple[float, float] | None = (0.0, 1.0),
    seed: int = 0,
    flips: int = 100_000,
) -> Paired:
    """b - a on the same problems: interval (see `difference_limits`) and sign-flip test (see `sign_flip_p`).

    Args:
        a: (N,) per-problem values of the one.
        b: (N,) of the other, in the same order.
        strata: (N,) benchmark of each problem; the interval then has the variance within benchmarks. The test flips
            problem by problem and needs none.
        denominators: samples a problem, one number or (N,), where the values are avg@n: the test is then exact.
        confidence: nominal coverage of the interval.
        bounds: smallest and largest possible value of a and b, None where there is none.
        seed: of the sign patterns, where they are drawn.
        flips: sign patterns drawn, where the test is not exact.

    Returns:
        The comparison.

    Raises:
        ValueError: other shapes, values that are not finite or outside the bounds, or wrong denominators.
    """
    difference = _differences(a, b, bounds)
    check_confidence(confidence)
    p_value, method = sign_flip_p(difference, denominators=denominators, seed=seed, flips=flips)
    quantile = t_quantile(confidence, variance_of_mean(difference, strata)[1])
    low, high = difference_limits(difference, strata, quantile, bounds)
    return Paired(float(difference.mean()), low, high, p_value, difference.size, method)


def difference_limits(
    difference: np.ndarray,
    strata: np.ndarray | None,
    quantile: float,
    bounds: tuple[float, float] | None,
) -> tuple[float, float]:
    """Limits of the mean difference: Student's t, after one problem more, half of it at +M and half at -M.

    M is the whole width of the bounds where up to 8 problems carry the differences, and falls as (8 / e)^2 with their
    effective number e. So few differing problems, or none, still give an interval that allows for the ones that did
    not differ by chance; the idea is that of Agresti and Min (2005) for pairs of coins. Without bounds M = 0.

    Args:
        difference: (N,).
        strata: (N,) or None.
        quantile: of the studentised difference.
        bounds: of the values that were subtracted.

    Returns:
        (low, high).
    """
    n, mean = difference.size, float(difference.mean())
    variance = variance_of_mean(difference, strata)[0]
    if bounds is None:
        half = quantile * sqrt(variance)
        return mean - half, mean + half
    width = bounds[1] - bounds[0]
    carriers = effective_problems(difference)
    added = width if carriers <= FEW_DIFFERENCES else width * (FEW_DIFFERENCES / carriers) ** 2
    # The variance of the mean of N + 1 values: within strata, plus what the added problem is away from the mean.
    wider = variance * (n - 1) / (n + 1) + (mean**2 * n / (n + 1) + added**2) / (n * (n + 1))
    centre, half = mean * n / (n + 1), quantile * sqrt(wider)
    return max(centre - half, -width), min(centre + half, width)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values that bound the family-wise error whatever the dependence (Holm 1979).

    The i-th smallest of m is multiplied by m - i + 1, and no adjusted value is below a smaller p-value's.

    Args:
        p_values: m of them, in any order.

    Returns:
        m adjusted values, in the order given.

    Raises:
        ValueError: a p-value outside [0, 1].
    """
    if not all(0 <= p <= 1 for p in p_values):
        raise ValueError(f"p-values are {list(p_values)}; expected numbers from 0 to 1")
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted


def compare_many(
    base: np.ndarray,
    candidates: np.ndarray,
    *,
    strata: np.ndarray | None = None,
    confidence: float = 0.95,
    bounds: tuple[float, float] | None = (0.0, 1.0),
    seed: int = 0,
    flips: int = 10_000,
) -> list[Paired]:
    """Each candidate against the base, valid for whichever candidate is looked at afterwards.

    P-values: the step-down max-T sign-flip test of Westfall and Young (1993). A problem's sign is flipped for all
    candidates at once, so their correlation is kept, and checkpoints of one run cost little. A candidate alone is
    tested exactly up to the drawn flips; the maximum is exact in the limit of many problems, because differences from
    one base share its noise and need not be symmetric together. Intervals: simultaneous,
    with the quantile of the largest |t| of all candidates in place of Student's, from sign flips of the residuals.

    Args:
        base: (N,) per-problem values.
        candidates: (C, N), problems in the same order.
        strata: (N,) benchmark of each problem, for the intervals.
        confidence: that all C intervals hold at once.
        bounds: smallest and largest possible value, None where there is none.
        seed: of the sign patterns.
        flips: sign patterns drawn; no p-value is below 1 / (flips + 1).

    Returns:
        C comparisons, in the order given.

    Raises:
        ValueError: other shapes, no candidates, or values that are not finite or outside the bounds.
    """
    check_confidence(confidence)
    candidates = np.asarray(candidates, dtype=np.float64)
    if candidates.ndim != 2 or not len(candidates):
        raise ValueError(f"candidates have shape {candidates.shape}; expected (C, N) with at least one candidate")
    differences = np.stack([_differences(base, candidate, bounds) for candidate in candidates])
    p_values = _step_down(differences, seed, flips)
    quantiles = _simultaneous_quantiles(differences, strata, confidence, seed, flips)
    method = f"step-down max-T, {flips} sign flips"
    results = []
    for difference, quantile, p_value in zip(differences, quantiles, p_values, strict=True):
        low, high = difference_limits(difference, strata, quantile, bounds)
        results.append(Paired(float(difference.mean()), low, high, float(p_value), difference.size, method))
    return results


def _differences(a: np.ndarray, b: np.ndarray, bounds: tuple[float, float] | None) -> np.ndarray:
    """(N,) b - a, checked."""
    a, b = checked_values(a), checked_values(b)
    if a.shape != b.shape:
        raise ValueError(f"{a.size} problems against {b.size}; expected the same problems in the same order")
    if bounds is not None and (min(a.min(), b.min()) < bounds[0] or max(a.max(), b.max()) > bounds[1]):
        raise ValueError(f"values outside the bounds {bounds}; expected them within, or give the right bounds")
    return b - a


def _unit_rows(rows: np.ndarray) -> np.ndarray:
    """(C, N) rows of length 1; a row of zeros stays. A flipped sum over a row grows with its |t|, row by row alike."""
    lengths = np.sqrt((rows * rows).sum(1, keepdims=True))
    return rows / np.where(lengths > 0, lengths, 1.0)


def _step_down(differences: np.ndarray, seed: int, flips: int) -> np.ndarray:
    """(C,) adjusted p-values: each candidate against the maximum over itself and all that are less far."""
    rows = _unit_rows(differences)
    observed = np.abs(rows.sum(1))
    order = np.argsort(-observed, kind="stable")
    limits = observed[order] - ROUNDING * np.abs(rows[order]).sum(1)
    beyond = np.zeros(len(order))
    for signs in sign_patterns(rows.shape[1], seed, flips):
        sums = np.abs(signs @ rows[order].T)
        largest = np.maximum.accumulate(sums[:, ::-1], axis=1)[:, ::-1]
        beyond += (largest >= limits).sum(0)
    adjusted = np.empty(len(order))
    adjusted[order] = np.maximum.accumulate((beyond + 1) / (flips + 1))
    return adjusted


def _simultaneous_quantiles(
    differences: np.ndarray, strata: np.ndarray | None, confidence: float, seed: int, flips: int
) -> list[float]:
    """C times the quantile of the largest |t| over candidates; none is below what its candidate has alone.

    Alone it is Student's. With strata the degrees of freedom differ between candidates: a spread that comes from a
    small benchmark is known less well.
    """
    n = differences.shape[1]
    residuals = differences.copy()
    for part in with_spread(strata_members(strata, n)):
        residuals[:, part] -= residuals[:, part].mean(1, keepdims=True)
    rows = _unit_rows(residuals)
    largest = np.concatenate([np.abs(signs @ rows.T).max(1) for signs in sign_patterns(n, seed, flips)])
    # r = sum / length is at most sqrt(N); t = r sqrt((N - 1) / (N - r^2)) grows with it.
    r = float(np.sort(largest)[min(ceil(confidence * (flips + 1)), flips) - 1])
    t = r * sqrt((n - 1) / max(n - r * r, 1e-9)) if n > 1 else 0.0
    return [max(t, t_quantile(confidence, variance_of_mean(difference, strata)[1])) for difference in differences]
