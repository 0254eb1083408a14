"""Where the outcome distribution changes for good: PELT on histograms, with a penalty that noise alone does not pay.

The cost of a segment is the deviance of its outcomes against one distribution: -2 sum_k N_k ln(N_k / N), N_k the
effective counts of category k. PELT (Killick et al. 2012, by the package ruptures) finds the segments with the least
cost plus penalty. The penalty is calibrated on this very path: outcomes are drawn anew as if nothing ever changed, with
the same branches, weights and numbers of samples, and the penalty is what all but `alpha` of such paths fail to pay. So
`alpha` is the chance that a path without forks shows one. No jitter is added: that is for methods that cannot stand
equal values.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np

from rlvr.errors import UserError

MOST_CHANGES = 6
"""Change points that a path without forks is tried with; more never pay where six do not."""

FLOOR = 1e-6
"""Smallest penalty: above rounding, for paths whose outcomes never differ."""


@dataclass(frozen=True)
class Drawn:
    """What was drawn at one position: (W,) weights that sum to 1, (W,) numbers of samples, (W, K) histograms."""

    weights: np.ndarray
    samples: np.ndarray
    histograms: np.ndarray


@dataclass(frozen=True)
class Changes:
    """Where a path of T positions changes.

    Attributes:
        starts: indices into the positions, ascending: the first position of each segment but the first.
        gains: for each, the deviance it saves: that of its two segments as one, less that of both.
        penalty: what a change point had to save.
        p_value: of the path, against no change anywhere.
    """

    starts: list[int]
    gains: list[float]
    penalty: float
    p_value: float


def find_changes(path: Sequence[Drawn], alpha: float = 0.01, simulations: int = 199, seed: int = 0) -> Changes:
    """The change points of a path.

    Args:
        path: T positions, in order.
        alpha: the chance of any change point where outcomes never change; above 1 / (simulations + 1).
        simulations: paths without change that are drawn for the penalty.
        seed: of these draws.

    Returns:
        No change points for fewer than two positions.

    Raises:
        ValueError: for an `alpha` that so few simulations cannot tell.
        UserError: if ruptures is not installed.
    """
    if not 1 / (simulations + 1) <= alpha < 1:
        raise ValueError(f"alpha is {alpha}; expected at least 1 / {simulations + 1} and less than 1")
    if len(path) < 2:
        return Changes([], [], FLOOR, 1.0)
    counts = _counts(path)
    costs = segment_costs(counts)
    null = np.sort(_null(path, counts, simulations, seed))
    penalty = max(float(null[ceil((1 - alpha) * (simulations + 1)) - 1]), FLOOR)
    # A hair above: a path that saves just as much as the quantile has not saved more.
    starts = pelt(costs, penalty * (1 + 1e-9))
    ends = [0, *starts, len(path)]
    gains = [
        float(costs[low, high] - costs[low, middle] - costs[middle, high])
        for low, middle, high in zip(ends[:-2], starts, ends[2:], strict=True)
    ]
    reached = int((null >= affordable(costs) - 1e-9).sum())
    return Changes(starts, gains, penalty, (1 + reached) / (simulations + 1))


def _counts(path: Sequence[Drawn]) -> np.ndarray:
    """(T, K) effective counts: the mixture of each position times the independent draws it is worth."""
    from rlvr.analysis.forking.outcomes import effective_samples, mixture

    return np.stack([
        effective_samples(one.weights, one.samples) * mixture(one.weights, one.histograms) for one in path
    ])  # fmt: skip


def _null(path: Sequence[Drawn], counts: np.ndarray, simulations: int, seed: int) -> np.ndarray:
    """(simulations,) the penalties that paths without a change would just pay."""
    from rlvr.analysis.forking.outcomes import effective_samples

    rng = np.random.default_rng(seed)
    pooled = counts.sum(axis=0) / counts.sum()
    widths = [len(one.weights) for one in path]
    first = np.concatenate([[0], np.cumsum(widths)[:-1]])
    samples = np.concatenate([one.samples for one in path]).astype(np.int64)
    weights = np.concatenate([one.weights for one in path])
    worth = np.array([effective_samples(one.weights, one.samples) for one in path])
    found = np.empty(simulations)
    for index in range(simulations):
        shares = rng.multinomial(samples, pooled) / samples[:, None]
        mixed = np.add.reduceat(weights[:, None] * shares, first, axis=0)
        found[index] = affordable(segment_costs(worth[:, None] * mixed))
    return found


def segment_costs(counts: np.ndarray) -> np.ndarray:
    """(T + 1, T + 1) cost of the segment from position s up to but not including e, at [s, e]; infinite where e <= s.

    Args:
        counts: (T, K), not negative, not necessarily whole.
    """
    sums = np.concatenate([np.zeros((1, counts.shape[1])), counts.cumsum(axis=0)])
    costs = _n_ln_n(sums.sum(axis=1)[None, :] - sums.sum(axis=1)[:, None])
    for column in sums.T:
        costs -= _n_ln_n(column[None, :] - column[:, None])
    costs *= 2
    costs[np.tril_indices(len(costs))] = np.inf
    return costs


def _n_ln_n(values: np.ndarray) -> np.ndarray:
    """x ln x, 0 where x is not above 0."""
    positive = values > 0
    return np.where(positive, values * np.log(np.where(positive, values, 1.0)), 0.0)


def affordable(costs: np.ndarray, most: int = MOST_CHANGES) -> float:
    """The largest penalty at which some number of change points, up to `most`, still pays: max over m of gain_m / m.

    Args:
        costs: of `segment_costs`.
        most: change points, at most.
    """
    ends = len(costs) - 1
    best = costs[0].copy()  # the least cost of the positions before each, with m change points
    largest = 0.0
    for changes in range(1, min(most, ends - 1) + 1):
        best = (best[:, None] + costs).min(axis=0)
        largest = max(largest, float(costs[0, ends] - best[ends]) / changes)
    return largest


def pelt(costs: np.ndarray, penalty: float) -> list[int]:
    """The change points that minimise cost plus penalty, by PELT of ruptures.

    Args:
        costs: of `segment_costs`, for at least two positions.
        penalty: of a change point.

    Returns:
        Starts of the segments but the first, ascending.
    """
    model = _cost_model()(costs)
    found = _ruptures().Pelt(custom_cost=model, min_size=1, jump=1).fit(np.zeros((len(costs) - 1, 1)))
    return [int(end) for end in found.predict(pen=penalty)[:-1]]


def _ruptures() -> Any:
    try:
        import ruptures
    except ImportError:
        raise UserError(
            "change points need the package ruptures, which is not installed; install it: pip install ruptures"
        ) from None
    return ruptures


def check_installed() -> None:
    """Refuse at the start what would fail at the end.

    Raises:
        UserError: if ruptures is not installed.
    """
    _ruptures()


def _cost_model() -> Any:
    """A cost of ruptures that looks segments up; a class made late, since ruptures may not be installed."""

    base: Any = _ruptures().base.BaseCost

    class Table(base):
        model = "table"
        min_size = 1

        def __init__(self, costs: np.ndarray) -> None:
            self.costs = costs

        def fit(self, signal: np.ndarray) -> "Table":
            self.signal = signal
            return self

        def error(self, start: int, end: int) -> float:
            return float(self.costs[start, end])

    return Table
