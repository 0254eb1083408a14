"""Averages over an optimizer step: summed on each rank, reduced once a step instead of once a slice."""

import torch
from torch import Tensor

from rlvr.maths.masked import reduce_sum
from rlvr.trainer.batch import Ranks


class StepStats:
    """Collects (sum, count) pairs of a step's slices; every rank has to add the same names."""

    def __init__(self) -> None:
        self._totals: dict[str, Tensor] = {}

    def add(self, sums: dict[str, tuple[Tensor, Tensor]]) -> None:
        """Add a slice's sums and counts, scalars on any device."""
        for name, (total, count) in sums.items():
            pair = torch.stack([total.detach().double(), count.detach().double()])
            self._totals[name] = self._totals[name] + pair if name in self._totals else pair

    def reduce(self, ranks: Ranks, counts: dict[str, float]) -> dict[str, float]:
        """Means over all ranks, and a fresh start.

        Args:
            ranks: the processes that share the step.
            counts: denominators known for the whole step already, by metric name.
        """
        names = sorted(self._totals)
        if not names:
            return {}
        totals = reduce_sum(torch.stack([self._totals[name] for name in names]), ranks.group).tolist()
        self._totals.clear()
        means = {}
        for name, (total, count) in zip(names, totals, strict=True):
            divisor = counts.get(name, count)
            means[name] = total / divisor if divisor else 0.0
        return means
