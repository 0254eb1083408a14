"""The same credit for every completion: for objectives that do not look at it."""

from dataclasses import dataclass

from torch import Tensor

from rlvr.advantages.base import Advantage
from rlvr.maths.rollouts import Rollouts
from rlvr.registry import variant


@variant("advantage", "constant")
@dataclass
class Constant(Advantage):
    """Chosen with `advantage=constant`: 1, whatever the reward; a prompt may be sampled once."""

    least_group = 1
    uses_rewards = False

    def __call__(self, rollouts: Rollouts) -> Tensor:
        return rollouts.mask.new_ones(len(rollouts.mask), dtype=rollouts.rewards.dtype)
