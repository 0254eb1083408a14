"""Which tokens stand where the policy is undecided (arXiv 2506.01939, figure 2)."""

from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class TokenTable:
    """Tokens by their mean entropy, the highest first; of equal ones the smaller id first.

    Attributes:
        ids: (M,) int64.
        counts: (M,) int64, how often each stood there.
        means: (M,) float64, nats: mean entropy of the distributions that it was drawn from.
        kept: (M,) float64, share of its occurrences that were selected.
    """

    ids: np.ndarray
    counts: np.ndarray
    means: np.ndarray
    kept: np.ndarray


def _zeros() -> np.ndarray:
    return np.zeros(0)


@dataclass
class TokenTally:
    """Adds up occurrences and entropies by token id. Memory grows with the largest id, not with the tokens.

    Attributes:
        counts: (V,) occurrences.
        sums: (V,) nats.
        selected: (V,) occurrences that were selected.
    """

    counts: np.ndarray = field(default_factory=_zeros)
    sums: np.ndarray = field(default_factory=_zeros)
    selected: np.ndarray = field(default_factory=_zeros)

    def add(self, token_ids: np.ndarray, entropies: np.ndarray, kept: np.ndarray) -> None:
        """Add tokens.

        Args:
            token_ids: (N,) integers, 0 or more.
            entropies: (N,) nats.
            kept: (N,) bool.
        """
        size = max(len(self.counts), int(token_ids.max(initial=-1)) + 1)
        for name, weights in (("counts", None), ("sums", entropies), ("selected", kept)):
            total = np.bincount(token_ids, weights, minlength=size).astype(np.float64)
            total[: len(getattr(self, name))] += getattr(self, name)
            setattr(self, name, total)

    def table(self, minimum: int = 100) -> TokenTable:
        """The tokens that stood there often enough.

        Args:
            minimum: occurrences, 1 or more; the paper asks for more than 100.
        """
        ids = np.flatnonzero(self.counts >= max(minimum, 1))
        means = self.sums[ids] / self.counts[ids]
        order = np.argsort(-means, kind="stable")
        ids, means, counts = ids[order], means[order], self.counts[ids[order]]
        return TokenTable(ids, counts.astype(np.int64), means, self.selected[ids] / counts)
