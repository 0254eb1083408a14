"""A confidence interval for the mean over problems. Problems are the unit: samples of one problem are not independent.

`docs/statistics.md` has the simulations that chose the methods; `scripts/interval_coverage.py` repeats them.
"""

from dataclasses import dataclass
from math import inf, sqrt

import numpy as np

from rlvr.evaluation.student import t_quantile

FEW_PROBLEMS = 1.5
"""Effective number of problems up to which the spread between problems is not believed; chosen by simulation."""


@dataclass(frozen=True)
class Interval:
    """A mean over problems and what is known about it.

    Attributes:
        mean: plain mean of the values.
        low: lower limit.
        high: upper limit.
        method: how the limits were made.
    """

    mean: float
    low: float
    high: float
    method: str


def mean_interval(
    values: np.ndarray,
    *,
    strata: np.ndarray | None = None,
    confidence: float = 0.95,
    bounds: tuple[float, float] | None = (0.0, 1.0),
) -> Interval:
    """Confidence interval for the mean of per-problem values.

    With bounds it is Wilson's interval (1927) with an effective number of coins n_eff = m (1 - m) / Var(mean) in
    place of n and a t quantile in place of the normal one, as in Korn and Graubard (1998); see `_inflation` for few
    problems. Without bounds it is Hall's transformation (1992) of the t statistic, which corrects for skewness. Both
    are closed forms, so nothing is drawn.

    Args:
        values: (N,) one value a problem: avg@n, pass@k, maj@k, tokens, ...
        strata: (N,) benchmark of each problem. The variance is then the one within benchmarks: another draw would have
            as many problems of each.
        confidence: nominal coverage, in (0, 1).
        bounds: smallest and largest possible value, None where there is none.

    Returns:
        The interval; low < high always holds with bounds. Without bounds, one problem gives infinite limits, and
        equal values give low = high.

    Raises:
        ValueError: values that are empty, not finite or outside the bounds, strata of another length, or a confidence
            outside (0, 1).
    """
    values = checked_values(values)
    check_confidence(confidence)
    variance, df = variance_of_mean(values, strata)
    if bounds is None:
        return _unbounded(values, variance, df, confidence)
    floor, ceiling = bounds
    if not floor < ceiling:
        raise ValueError(f"bounds are {bounds}; expected the smaller one first")
    if values.min() < floor or values.max() > ceiling:
        raise ValueError(f"values from {values.min()} to {values.max()}; expected them within the bounds {bounds}")
    width = ceiling - floor
    low, high = _bounded((values - floor) / width, variance / width**2, t_quantile(confidence, df))
    return Interval(float(values.mean()), floor + width * low, floor + width * high, "Wilson with n_eff")


def checked_values(values: np.ndarray) -> np.ndarray:
    """The values as (N,) float64.

    Args:
        values: (N,) numbers.

    Returns:
        (N,) float64.

    Raises:
        ValueError: not one dimension, empty, or not finite.
    """
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 1 or not values.size:
        raise ValueError(f"values have shape {values.shape}; expected (N,) with at least one problem")
    if not np.isfinite(values).all():
        raise ValueError(f"{int((~np.isfinite(values)).sum())} of {values.size} values are not finite; leave them out")
    return values


def check_confidence(confidence: float) -> None:
    """Refuse a confidence outside (0, 1).

    Args:
        confidence: nominal coverage.

    Raises:
        ValueError: outside (0, 1), or in percent.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}; expected a share between 0 and 1, such as 0.95")


def strata_members(strata: np.ndarray | None, problems: int) -> list[np.ndarray]:
    """The problems of each stratum.

    Args:
        strata: (N,) labels, or None for one stratum.
        problems: N.

    Returns:
        Index arrays, one a stratum, in order of the labels.

    Raises:
        ValueError: another length than N.
    """
    if strata is None:
        return [np.arange(problems)]
    strata = np.asarray(strata)
    if strata.shape != (problems,):
        raise ValueError(f"strata have shape {strata.shape}; expected ({problems},), a benchmark for each problem")
    codes = np.unique(strata, return_inverse=True)[1]
    return [np.flatnonzero(codes == code) for code in range(int(codes.max()) + 1)]


def with_spread(members: list[np.ndarray]) -> list[np.ndarray]:
    """Strata of one problem, which show no spread, put together; a last one joins the largest stratum.

    Args:
        members: index arrays.

    Returns:
        Index arrays with two problems each, unless there is one problem in all.
    """
    large = sorted((part for part in members if part.size > 1), key=len)
    single = [part for part in members if part.size == 1]
    if single:
        rest = np.concatenate(single)
        if rest.size > 1 or not large:
            large.append(rest)
        else:
            large[-1] = np.concatenate([large[-1], rest])
    return large


def variance_of_mean(values: np.ndarray, strata: np.ndarray | None) -> tuple[float, float]:
    """Variance of the mean over problems, and its degrees of freedom (Satterthwaite 1946).

    Args:
        values: (N,).
        strata: (N,) benchmark of each problem, or None.

    Returns:
        (variance, degrees of freedom, at least 1). One problem alone has variance 0.
    """
    parts = with_spread(strata_members(strata, values.size))
    terms, squares = 0.0, 0.0
    for part in parts:
        if part.size > 1:
            term = part.size * float(values[part].var(ddof=1)) / values.size**2
            terms += term
            squares += term**2 / (part.size - 1)
    if squares > 0:
        return terms, max(terms**2 / squares, 1.0)
    return terms, max(values.size - len(parts), 1)


def effective_problems(values: np.ndarray) -> float:
    """How many problems carry a sum: (sum |x|)^2 / sum x^2, which is N for equal values and 1 for a single one.

    Args:
        values: (N,).

    Returns:
        From 1 to N, or 0 where all values are 0 (Kish 1965).
    """
    squares = float((values * values).sum())
    return float(np.abs(values).sum()) ** 2 / squares if squares > 0 else 0.0


def _inflation(shares: np.ndarray, variance: float) -> float:
    """N / n_eff: the variance of the mean, as a share of the largest possible one, m (1 - m) / N.

    Where the right answers, or the wrong ones, come from few problems, the spread between problems is estimated from
    those few, mostly too small: the rare problem that would have shown it is missing. So it is moved towards the
    largest possible one, every problem all or nothing, by (1.5 / e)^2, where e is the effective number of problems
    that carry the right (or wrong) answers. At all 0 or all 1 nothing is known but N.
    """
    mean = float(shares.mean())
    carriers = min(effective_problems(shares), effective_problems(1 - shares))
    if carriers <= FEW_PROBLEMS:
        return 1.0
    ratio = min(1.0, variance * shares.size / (mean * (1 - mean)))
    return ratio + (1 - ratio) * (FEW_PROBLEMS / carriers) ** 2


def _bounded(shares: np.ndarray, variance: float, quantile: float) -> tuple[float, float]:
    """Wilson's limits with n_eff, for values in [0, 1]."""
    mean = float(shares.mean())
    n_eff = shares.size / _inflation(shares, variance)
    extra = quantile**2 / n_eff
    centre = (mean + extra / 2) / (1 + extra)
    half = quantile / (1 + extra) * sqrt(mean * (1 - mean) / n_eff + extra / (4 * n_eff))
    # At all 0 the lower limit is 0 but for rounding, and at all 1 the upper one is 1.
    return min(max(centre - half, 0.0), mean), max(min(centre + half, 1.0), mean)


def _unbounded(values: np.ndarray, variance: float, df: float, confidence: float) -> Interval:
    """Limits where W + g W^2 / 3 + g^2 W^3 / 27 + g / 6N, W = (mean - mu) / s, is at -+ q / sqrt(N) (Hall 1992).

    g is the skewness. The cubic is monotone, so it has an inverse: 3 (cbrt(1 + g (y - g / 6N)) - 1) / g.
    """
    n, mean = values.size, float(values.mean())
    if n == 1:
        return Interval(mean, -inf, inf, "none: one problem")
    scale = sqrt(variance * n)
    # The smallest normal numbers have no cube; a spread of that size is rounding.
    if scale <= 1e-12 * max(1.0, abs(mean)):
        return Interval(mean, mean, mean, "Hall's transformed t")
    skewness = float((((values - mean) / scale) ** 3).mean())
    reach = t_quantile(confidence, df) / sqrt(n)

    def untransformed(y: float) -> float:
        y -= skewness / (6 * n)
        return y if abs(skewness) < 1e-6 else 3 * float(np.cbrt(1 + skewness * y) - 1) / skewness

    return Interval(
        mean, mean - scale * untransformed(reach), mean - scale * untransformed(-reach), "Hall's transformed t"
    )
