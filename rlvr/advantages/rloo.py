"""RLOO: reward minus the mean of the *other* completions of its group (arXiv 2402.14740, eq. 7)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from rlvr.advantages.base import Advantage
from rlvr.maths.groups import centred, scorable_count
from rlvr.maths.rollouts import Rollouts
from rlvr.registry import variant


def leave_one_out(rewards: Tensor, group_size: int) -> Tensor:
    """r_i - mean over j != i of r_j = n / (n - 1) * (r_i - mean), with n the scorable rewards of the group.

    Args:
        rewards: (B,), groups contiguous, NaN where unscorable (gets 0).
        group_size: G.

    Returns:
        (B,) float32; 0 where a group has a single scorable reward.
    """
    count_B = scorable_count(rewards, group_size)
    factor_B = count_B / (count_B - 1).clamp(min=1)
    return torch.nan_to_num(centred(rewards, group_size) * factor_B, nan=0.0).float()


@variant("advantage", "rloo")
@dataclass
class RLOO(Advantage):
    """Chosen with `advantage=rloo`."""

    def __call__(self, rollouts: Rollouts) -> Tensor:
        return leave_one_out(rollouts.rewards, rollouts.group_size)
