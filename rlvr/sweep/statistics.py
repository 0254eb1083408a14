"""Means over seeds, and arms that are paired by seed. A run is the unit; numpy alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import atan, isclose, lgamma, pi, sqrt
from math import exp as exponential

import numpy as np

from rlvr.evaluation.paired import holm
from rlvr.evaluation.sign_flip import sign_flip_p
from rlvr.evaluation.student import NODES, WEIGHTS, t_quantile


@dataclass(frozen=True)
class OverSeeds:
    """A mean over seeds.

    Attributes:
        mean: of the values.
        low: lower limit of the 95 % t interval; None with one seed.
        high: upper limit.
        seeds: how many.
    """

    mean: float
    low: float | None
    high: float | None
    seeds: int


@dataclass(frozen=True)
class PairedOverSeeds:
    """An arm minus its baseline, seed by seed.

    Attributes:
        difference: the mean of the differences, with its interval.
        p_value: two-sided, of the paired t test; None with one seed, and where all differences are the same number
            other than 0: their spread, which the test divides by, is then unknown.
        adjusted: the same by Holm's method, over all arms of a sweep; None where there is none.
        sign_flip_p: two-sided, of the exact sign-flip test.
        least_sign_flip_p: the least p-value that this test could give with so many seeds, 2 / 2^n.
    """

    difference: OverSeeds
    p_value: float | None
    adjusted: float | None
    sign_flip_p: float
    least_sign_flip_p: float


def over_seeds(values: Sequence[float], bounds: tuple[float, float] | None = None) -> OverSeeds:
    """Mean and interval: mean -+ t(0.975, n - 1) s / sqrt(n), s with n - 1 in its denominator.

    The interval covers what differs between seeds. It does not cover the draw of problems, which seeds share.

    Args:
        values: one of each seed, at least one.
        bounds: that the limits are cut to.

    Raises:
        ValueError: without a value.
    """
    if not values:
        raise ValueError("no values; expected one of each seed")
    numbers = np.asarray(values, dtype=np.float64)
    mean = float(numbers.mean())
    if numbers.size < 2:
        return OverSeeds(mean, None, None, 1)
    half = t_quantile(0.95, numbers.size - 1) * _spread(numbers) / sqrt(numbers.size)
    low, high = mean - half, mean + half
    if bounds is not None:
        low, high = max(low, bounds[0]), min(high, bounds[1])
    return OverSeeds(mean, low, high, numbers.size)


def paired_over_seeds(arm: Mapping[int, float], baseline: Mapping[int, float]) -> PairedOverSeeds | None:
    """Compare two arms on the seeds that both have; None where there is none.

    Args:
        arm: seed -> value.
        baseline: likewise.
    """
    shared = sorted(arm.keys() & baseline.keys())
    if not shared:
        return None
    differences = np.array([arm[seed] - baseline[seed] for seed in shared])
    moving = np.where(np.abs(differences) < 1e-12, 0.0, differences)
    p_value = _paired_t_p(moving)
    found = over_seeds(differences.tolist())
    return PairedOverSeeds(found, p_value, None, sign_flip_p(moving)[0], 2.0 / 2 ** len(shared))


def _paired_t_p(differences: np.ndarray) -> float | None:
    if differences.size < 2:
        return None
    spread, mean = _spread(differences), float(differences.mean())
    if spread == 0:
        return 1.0 if mean == 0 else None
    return t_p_value(mean / (spread / sqrt(differences.size)), differences.size - 1)


def _spread(values: np.ndarray) -> float:
    """The standard deviation; exactly 0 where values differ by rounding only."""
    if isclose(float(values.min()), float(values.max()), rel_tol=1e-12, abs_tol=1e-12):
        return 0.0
    return float(values.std(ddof=1))


def t_p_value(t: float, df: float) -> float:
    """P(|T| >= |t|) for Student's t: the upper tail, integrated by itself, so that small ones stay accurate.

    With t = sqrt(df) / tan(b) the density becomes a multiple of sin(b)^(df - 1), and the tail ends at b = 0.

    Args:
        t: the statistic.
        df: degrees of freedom, at least 1.
    """
    if t == 0:
        return 1.0
    end = atan(sqrt(df) / abs(t))
    scale = exponential(lgamma((df + 1) / 2) - lgamma(df / 2)) / sqrt(pi)
    return min(1.0, 2 * scale * end / 2 * float(WEIGHTS @ np.sin(end / 2 * (NODES + 1)) ** (df - 1)))


def adjusted(comparisons: Mapping[str, PairedOverSeeds]) -> dict[str, PairedOverSeeds]:
    """The comparisons of a sweep with p-values adjusted together (Holm 1979).

    One without a p-value counts as one of them, as if it were 1.
    """
    values = holm([1.0 if one.p_value is None else one.p_value for one in comparisons.values()])
    return {
        name: replace(one, adjusted=None if one.p_value is None else value)
        for (name, one), value in zip(comparisons.items(), values, strict=True)
    }
