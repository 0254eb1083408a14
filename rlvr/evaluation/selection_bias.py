"""How much choosing the best of many checkpoints on a benchmark flatters it on that benchmark."""

from dataclasses import dataclass

import numpy as np

from rlvr.evaluation.intervals import strata_members


@dataclass(frozen=True)
class Honest:
    """The best candidate, and what choosing it is worth.

    Attributes:
        best: its index; the first of equals.
        naive_mean: its mean on the problems that chose it.
        honest_mean: mean, over splits, of the score on one half of the candidate that was best on the other half.
        splits: random splits, each used both ways.
    """

    best: int
    naive_mean: float
    honest_mean: float
    splits: int

    @property
    def flattery(self) -> float:
        """How far the naive mean is above the honest one."""
        return self.naive_mean - self.honest_mean


def honest_best(values: np.ndarray, *, strata: np.ndarray | None = None, splits: int = 1000, seed: int = 0) -> Honest:
    """Choose on one half of the problems, score on the other half, over random halves.

    The honest mean estimates what the procedure "take the best on half of the problems" gives on new problems. Half of
    the problems choose less well than all of them, so it is a little low where candidates truly differ.

    Args:
        values: (C, N) per-problem values of C candidates on the same problems.
        strata: (N,) benchmark of each problem; each is halved by itself.
        splits: random splits.
        seed: of the splits.

    Returns:
        Best, naive and honest mean.

    Raises:
        ValueError: another shape, fewer than two problems, values that are not finite, or no splits.
    """
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 2 or not len(values) or values.shape[1] < 2:
        raise ValueError(f"values have shape {values.shape}; expected (C, N) with a candidate and two problems")
    if not np.isfinite(values).all():
        raise ValueError(f"{int((~np.isfinite(values)).sum())} values are not finite; leave those problems out")
    if splits < 1:
        raise ValueError(f"splits is {splits}; expected at least 1")
    means = values.mean(1)
    best = int(means.argmax())
    rng = np.random.default_rng(seed)
    members = strata_members(strata, values.shape[1])
    totals = values.sum(1)
    scores = np.empty((splits, 2))
    for split in range(splits):
        half = _half(members, rng)
        size = half.size
        one = values[:, half].sum(1)
        # Sums over the other half by subtraction; ties of equals are kept apart from rounding.
        other = totals - one
        chosen, chosen_back = np.round(one, 9).argmax(), np.round(other, 9).argmax()
        scores[split] = other[chosen] / (values.shape[1] - size), one[chosen_back] / size
    return Honest(best, float(means[best]), float(scores.mean()), splits)


def _half(members: list[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """Half of the problems of each stratum. Odd ones are dealt in turn, so that halves differ by one at most."""
    halves, extra = [], bool(rng.integers(2))
    for part in members:
        size = part.size // 2
        if part.size % 2:
            size += extra
            extra = not extra
        halves.append(rng.permutation(part)[:size])
    return np.concatenate(halves)
