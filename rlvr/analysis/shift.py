"""How entropies differ between policies on the same tokens (arXiv 2506.01939, section 4)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rlvr.selection.select import select_tokens

BINS = 20
"""Of 5 per cent of the tokens each."""


def top_positions(entropies: np.ndarray, keep: float = 0.2) -> np.ndarray:
    """The tokens of highest entropy, exactly ceil(keep * N), by the selection that training uses.

    Args:
        entropies: (N,) nats; of equal ones the first counts as higher.
        keep: share, above 0 and at most 1.

    Returns:
        (N,) bool.
    """
    import torch

    values = torch.from_numpy(np.ascontiguousarray(entropies, dtype=np.float32)).unsqueeze(0)
    return select_tokens(values, torch.ones_like(values, dtype=torch.bool), keep=keep).mask[0].numpy()


def overlaps(entropies: Sequence[np.ndarray], keep: float = 0.2) -> np.ndarray:
    """How far policies agree where the forks are: |S_a and S_b| / |S_a|, S the positions of highest entropy.

    Args:
        entropies: of C policies, (N,) nats each, on the same tokens.
        keep: share of the positions in S.

    Returns:
        (C, C) shares; 1 on the diagonal. All S have one size, so it is symmetric. Chance is `keep`.
    """
    tops = [top_positions(values, keep) for values in entropies]
    return np.array([[float((a & b).sum() / a.sum()) for b in tops] for a in tops])


@dataclass(frozen=True)
class Drift:
    """Change of entropy by the entropy that a token had before, in bins of equal counts, lowest first.

    Attributes:
        low: (bins,) lowest entropy before, nats.
        high: (bins,) highest entropy before.
        counts: (bins,) tokens.
        means: (bins,) mean of after minus before, nats.
        errors: (bins,) standard errors of the means over problems; NaN where a bin has tokens of one problem only.
    """

    low: np.ndarray
    high: np.ndarray
    counts: np.ndarray
    means: np.ndarray
    errors: np.ndarray


def drift(before: np.ndarray, after: np.ndarray, problems: np.ndarray, bins: int = BINS) -> Drift:
    """Mean change of entropy by percentile of the entropy before.

    Args:
        before: (N,) nats, of the base policy, N at least `bins`.
        after: (N,) nats, of the other policy on the same tokens.
        problems: (N,) which problem a token is of; tokens of one problem are not independent.
        bins: of equal counts by rank (they differ by 1 at most); equal entropies stay in order.

    Raises:
        ValueError: for arrays of different lengths, or fewer tokens than bins.
    """
    if not before.shape == after.shape == problems.shape or before.ndim != 1:
        raise ValueError(f"got {before.shape}, {after.shape} and {problems.shape}; expected (N,) of each")
    if before.size < bins:
        raise ValueError(f"{before.size} tokens for {bins} bins; expected one token a bin at least")
    parts = np.array_split(np.argsort(before, kind="stable"), bins)
    change = after.astype(np.float64) - before.astype(np.float64)
    errors = [clustered_error(change[part], problems[part]) for part in parts]
    return Drift(
        low=np.array([before[part[0]] for part in parts]), high=np.array([before[part[-1]] for part in parts]),
        counts=np.array([part.size for part in parts]), means=np.array([change[part].mean() for part in parts]),
        errors=np.array(errors),
    )  # fmt: skip


def clustered_error(values: np.ndarray, clusters: np.ndarray) -> float:
    """Standard error of a mean whose values come in clusters (linearised ratio; Cochran 1977, section 6.4).

    sqrt(C / (C - 1) * sum_c (S_c - m n_c)^2) / N, with S_c the sum and n_c the count of cluster c. With one value a
    cluster it is the usual s / sqrt(N).

    Args:
        values: (N,).
        clusters: (N,) labels.

    Returns:
        The error; NaN for a single cluster.
    """
    codes, sizes = np.unique(clusters, return_inverse=True, return_counts=True)[1:]
    count = len(sizes)
    if count < 2:
        return float("nan")
    residuals = np.bincount(codes, values) - values.mean() * sizes
    return float(np.sqrt(count / (count - 1) * (residuals**2).sum()) / len(values))
