"""Dr. GRPO: reward centred on its group, not divided by anything (arXiv 2503.20783, section 3.2)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from rlvr.advantages.base import Advantage
from rlvr.maths.groups import centred
from rlvr.maths.rollouts import Rollouts
from rlvr.registry import variant


def centred_rewards(rewards: Tensor, group_size: int) -> Tensor:
    """r - mean of the group.

    Args:
        rewards: (B,), groups contiguous, NaN where unscorable (gets 0).
        group_size: G.

    Returns:
        (B,) float32.
    """
    return torch.nan_to_num(centred(rewards, group_size), nan=0.0).float()


@variant("advantage", "dr_grpo")
@dataclass
class DrGRPO(Advantage):
    """Chosen with `advantage=dr_grpo`."""

    def __call__(self, rollouts: Rollouts) -> Tensor:
        return centred_rewards(rollouts.rewards, rollouts.group_size)
