"""How well a number tells one kind from the other: the area under the ROC curve, with an interval over problems."""

from dataclasses import dataclass

import numpy as np

RESAMPLES = 2000


@dataclass(frozen=True)
class Area:
    """An AUROC.

    Attributes:
        value: P(score of a positive > score of a negative) + P(equal) / 2; NaN where one kind is missing.
        low: lower limit; NaN where there is none.
        high: upper limit.
    """

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class _Sorted:
    """Scores in ascending order, with where a new value begins."""

    positive: np.ndarray  # (N,) 1 or 0
    codes: np.ndarray  # (N,) cluster
    starts: np.ndarray  # first of each different score

    @staticmethod
    def of(scores: np.ndarray, positive: np.ndarray, codes: np.ndarray) -> "_Sorted":
        order = np.argsort(scores, kind="stable")
        values = scores[order]
        starts = np.flatnonzero(np.concatenate([[True], values[1:] != values[:-1]]))
        return _Sorted(positive[order].astype(np.float64), codes[order], starts)

    def area(self, weights: np.ndarray) -> float:
        """AUROC of weighted rows."""
        ups = np.add.reduceat(weights * self.positive, self.starts)
        downs = np.add.reduceat(weights * (1 - self.positive), self.starts)
        pairs = ups.sum() * downs.sum()
        return float((ups * (np.cumsum(downs) - downs / 2)).sum() / pairs) if pairs else float("nan")


def auroc(scores: np.ndarray, positive: np.ndarray) -> float:
    """The share of (positive, negative) pairs that the score orders; equal scores count half.

    Args:
        scores: (N,) finite.
        positive: (N,) bool.

    Returns:
        Between 0 and 1, 0.5 for chance; NaN where one kind is missing.

    Raises:
        ValueError: for arrays of different lengths, or scores that are not finite.
    """
    scores, positive = _checked(scores, positive)
    if not scores.size:
        return float("nan")
    rows = _Sorted.of(scores, positive, np.zeros(scores.size, dtype=np.int64))
    return rows.area(np.ones(scores.size))


def _checked(scores: np.ndarray, positive: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    scores, positive = np.asarray(scores, dtype=np.float64), np.asarray(positive, dtype=bool)
    if scores.ndim != 1 or scores.shape != positive.shape:
        raise ValueError(f"scores are {scores.shape} and labels {positive.shape}; expected (N,) of both")
    if not np.isfinite(scores).all():
        raise ValueError(f"{int((~np.isfinite(scores)).sum())} scores are not finite; leave these rows out")
    return scores, positive


def auroc_interval(
    scores: np.ndarray,
    positive: np.ndarray,
    problems: np.ndarray,
    *,
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Area:
    """AUROC with a percentile interval from resampled problems.

    Samples of one problem are not independent, so whole problems are drawn with replacement. A resample without one of
    the kinds has no AUROC and is left out. With one problem, or one kind, there is no interval. With few problems that
    have a positive (or a negative) it is too short.

    Args:
        scores: (N,) finite.
        positive: (N,) bool.
        problems: (N,) labels.
        confidence: of the two-sided interval, in (0, 1).
        resamples: draws.
        seed: of the draws; the same input gives the same interval.

    Raises:
        ValueError: as for `auroc`, or problems of another length.
    """
    scores, positive = _checked(scores, positive)
    value = auroc(scores, positive)
    codes = np.unique(np.asarray(problems), return_inverse=True)[1]
    if codes.shape != scores.shape:
        raise ValueError(f"problems are {codes.shape}; expected {scores.shape}, one label a row")
    count = int(codes.max(initial=-1)) + 1
    if count < 2 or np.isnan(value):
        return Area(value, float("nan"), float("nan"))
    rows, random = _Sorted.of(scores, positive, codes), np.random.default_rng(seed)
    draws = (np.bincount(random.integers(0, count, count), minlength=count) for _ in range(resamples))
    areas = np.array([rows.area(times[rows.codes].astype(np.float64)) for times in draws])
    tail = (1 - confidence) / 2
    low, high = np.quantile(areas[~np.isnan(areas)], [tail, 1 - tail])
    return Area(value, float(low), float(high))


def auroc_within(
    scores: np.ndarray,
    positive: np.ndarray,
    draws: np.ndarray,
    problems: np.ndarray,
    *,
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Area:
    """The share of pairs of one draw that the score orders, with an interval from resampled problems.

    Only a positive and a negative that answer the same problem are compared, so a score that tells hard problems from
    easy ones gains nothing by that. Every pair counts once.

    Args:
        scores: (N,) finite.
        positive: (N,) bool.
        draws: (N,) labels; rows with one label are compared with each other.
        problems: (N,) labels; a draw belongs to one problem.
        confidence: of the two-sided interval, in (0, 1).
        resamples: draws of the interval.
        seed: of the interval.

    Returns:
        The area; all NaN where no pair has two different scores.

    Raises:
        ValueError: as for `auroc`.
    """
    scores, positive = _checked(scores, positive)
    codes, problem_codes = (np.unique(labels, return_inverse=True)[1] for labels in (draws, problems))
    count = int(problem_codes.max(initial=-1)) + 1
    won, pairs, differ = np.zeros(count), np.zeros(count), False
    order = np.argsort(codes, kind="stable")
    for rows in np.split(order, np.flatnonzero(np.diff(codes[order])) + 1):
        ups = int(positive[rows].sum())
        if 0 < ups < rows.size:
            possible = ups * (rows.size - ups)
            won[problem_codes[rows[0]]] += auroc(scores[rows], positive[rows]) * possible
            pairs[problem_codes[rows[0]]] += possible
            differ |= bool(np.ptp(scores[rows]) > 0)
    if not differ:
        return Area(float("nan"), float("nan"), float("nan"))
    random, tail = np.random.default_rng(seed), (1 - confidence) / 2
    draws_of = (np.bincount(random.integers(0, count, count), minlength=count) for _ in range(resamples))
    sums = np.array([(times @ won, times @ pairs) for times in draws_of])
    areas = sums[sums[:, 1] > 0]
    low, high = np.quantile(areas[:, 0] / areas[:, 1], [tail, 1 - tail]) if count > 1 else (np.nan, np.nan)
    return Area(float(won.sum() / pairs.sum()), float(low), float(high))
