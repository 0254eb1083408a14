"""How token entropies are distributed, within a policy and over training (arXiv 2506.01939, section 3)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

CERTAIN = 0.01
"""Nats below which the paper counts a token as almost certain."""

PERCENTILES = (5, 10, 25, 50, 75, 80, 90, 95, 99, 100)
TRACES = tuple(range(0, 101, 5))
"""Percentiles that are followed over training."""


@dataclass(frozen=True)
class Distribution:
    """Entropies of N tokens.

    Attributes:
        count: N.
        mean: nats.
        certain: share of tokens below `CERTAIN`.
        percentiles: nats, by percentile.
        edges: (bins + 1,) of the histogram, nats, from 0 or the smallest value to the largest.
        counts: (bins,) tokens; the last bin has its right edge in it.
    """

    count: int
    mean: float
    certain: float
    percentiles: dict[float, float]
    edges: np.ndarray
    counts: np.ndarray


def distribution(
    entropies: np.ndarray, percentiles: Sequence[float] = PERCENTILES, bins: int = 100, certain: float = CERTAIN
) -> Distribution:
    """Describe entropies.

    Args:
        entropies: (N,) nats, N at least 1.
        percentiles: between 0 and 100; exact, linear between two neighbouring values.
        bins: of the histogram, of equal width.
        certain: nats.

    Raises:
        ValueError: if there is none.
    """
    if not entropies.size:
        raise ValueError("there is no entropy; expected one at least")
    low, high = min(0.0, float(entropies.min())), float(entropies.max())
    counts, edges = np.histogram(entropies, bins=bins, range=(low, high if high > low else low + 1.0))
    values = np.percentile(entropies, list(percentiles))
    return Distribution(
        count=int(entropies.size), mean=float(entropies.mean(dtype=np.float64)),
        certain=float((entropies < certain).mean()),
        percentiles={at: float(value) for at, value in zip(percentiles, values, strict=True)},
        edges=edges, counts=counts,
    )  # fmt: skip


def percentile_trace(entropies: np.ndarray, percentiles: Sequence[float] = TRACES) -> np.ndarray:
    """Percentiles of one step of training.

    Args:
        entropies: (N,) nats, N at least 1.
        percentiles: P numbers between 0 and 100.

    Returns:
        (P,) float64, nats.
    """
    return np.percentile(entropies, list(percentiles)).astype(np.float64)
