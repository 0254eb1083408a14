"""GRPO: reward centred on its group and divided by a standard deviation (arXiv 2402.03300, section 4.1.2)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from rlvr.advantages.base import Advantage
from rlvr.errors import UserError
from rlvr.maths.groups import centred, group_std
from rlvr.maths.rollouts import Rollouts
from rlvr.registry import variant

SCALES = ("group", "batch", "none")


def grpo_advantages(
    rewards: Tensor, group_size: int, scale: str = "group", eps: float = 1e-4, all_rewards: Tensor | None = None
) -> Tensor:
    """(r - mean of the group) / (std + eps); std with n - 1 in the denominator, as TRL and verl compute it.

    Args:
        rewards: (B,), groups contiguous, NaN where unscorable: such a row is left out of the statistics and gets 0.
        group_size: G.
        scale: `group`, `batch` (one std over `all_rewards`) or `none` (Dr. GRPO).
        eps: added to the std; 1e-4 in TRL, 1e-6 in verl.
        all_rewards: the rewards of every rank, for `scale=batch`; None for `rewards` alone.

    Returns:
        (B,) float32; exactly 0 in a group whose rewards are all equal.

    Raises:
        ValueError: if B is not a multiple of G, or the scale is unknown.
    """
    if scale not in SCALES:
        raise ValueError(f"scale is {scale!r}; expected one of {', '.join(SCALES)}")
    advantages = centred(rewards, group_size)
    if scale == "group":
        advantages = advantages / (group_std(rewards, group_size) + eps)
    elif scale == "batch":
        pooled = rewards if all_rewards is None else all_rewards
        scorable = pooled[pooled.isfinite()].double()
        advantages = advantages / ((scorable.std() if scorable.numel() > 1 else 0.0) + eps)
    return torch.nan_to_num(advantages, nan=0.0).float()


@variant("advantage", "grpo")
@dataclass
class GRPO(Advantage):
    """Chosen with `advantage=grpo`.

    Attributes:
        scale: `group`, `batch` or `none`: whose standard deviation divides.
        eps: added to the standard deviation.
    """

    scale: str = "group"
    eps: float = 1e-4

    def __post_init__(self) -> None:
        if self.scale not in SCALES:
            raise UserError(f"advantage.scale is {self.scale!r}; expected one of {', '.join(SCALES)}")
        if not 0 <= self.eps < float("inf"):
            raise UserError(f"advantage.eps is {self.eps}; expected 0 or a small positive number, e.g. 1e-4")

    def __call__(self, rollouts: Rollouts) -> Tensor:
        return grpo_advantages(rollouts.rewards, rollouts.group_size, self.scale, self.eps, rollouts.all_rewards)
