"""EM-RL: the policy's own confidence as reward, with RLOO's baseline (arXiv 2505.15134, section 3.2)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from rlvr.advantages.base import Advantage
from rlvr.advantages.rloo import leave_one_out
from rlvr.errors import UserError
from rlvr.maths.rollouts import Rollouts
from rlvr.registry import variant

SOURCES = ("sequence", "token")
AGGREGATES = ("mean", "sum")


def confidence(logps: Tensor, entropies: Tensor, mask: Tensor, source: str, aggregate: str = "mean") -> Tensor:
    """How sure the policy was of each completion, in nats; at most 0.

    `sequence`: log pi of the sampled tokens (eq. 3); `token`: minus the entropies (eq. 4). The paper sums over tokens.
    The released code takes the mean, which pays nothing for shortness by itself.

    Args:
        logps: (B, T) of the sampled tokens under the policy that sampled.
        entropies: (B, T) of its distributions.
        mask: (B, T) bool, sampled tokens.
        source: `sequence` or `token`.
        aggregate: `mean` or `sum`.

    Returns:
        (B,) float64, NaN for a completion without tokens.

    Raises:
        ValueError: for an unknown source or aggregate.
    """
    if source not in SOURCES or aggregate not in AGGREGATES:
        raise ValueError(f"source is {source!r} and aggregate {aggregate!r}; expected one of {SOURCES}, {AGGREGATES}")
    values = logps if source == "sequence" else -entropies
    count_B = mask.sum(dim=1)
    total_B = torch.where(mask, values.double(), 0.0).sum(dim=1)
    rewards_B = total_B / count_B if aggregate == "mean" else total_B
    return rewards_B.masked_fill(count_B == 0, float("nan"))


@variant("advantage", "em_rl")
@dataclass
class EMRL(Advantage):
    """Chosen with `advantage=em_rl`. Reads no reward and no right answer.

    Attributes:
        source: what is rewarded: `sequence` (log-probabilities of the sampled tokens) or `token` (minus the entropies),
            of the policy that sampled, at the sampling temperature.
        aggregate: over a completion's tokens: `mean` (the released code) or `sum` (the paper).
    """

    needs_scores = True
    uses_rewards = False

    source: str = "sequence"
    aggregate: str = "mean"

    def __post_init__(self) -> None:
        for name, known in (("source", SOURCES), ("aggregate", AGGREGATES)):
            if getattr(self, name) not in known:
                raise UserError(f"advantage.{name} is {getattr(self, name)!r}; expected one of {', '.join(known)}")

    def __call__(self, rollouts: Rollouts) -> Tensor:
        if rollouts.logps is None or rollouts.entropies is None:
            raise ValueError("rollouts.logps or rollouts.entropies is None; expected those of the policy that sampled")
        rewards = confidence(rollouts.logps, rollouts.entropies, rollouts.mask, self.source, self.aggregate)
        return leave_one_out(rewards, rollouts.group_size)
