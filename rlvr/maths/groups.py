"""Statistics of the G completions of one prompt. NaN marks a completion nobody could score: it is skipped.

An infinite reward has no mean to be compared with, so it counts as unscorable too. Groups are contiguous: rows 0..G-1
are the first prompt's. All arithmetic is in float64, and the rewards of a group that are all equal are exactly their
mean.
"""

import torch
from torch import Tensor


def _grouped(rewards_B: Tensor, group_size: int) -> Tensor:
    """(P, G) float64, NaN where unscorable."""
    if group_size < 1 or rewards_B.numel() % group_size:
        raise ValueError(
            f"{rewards_B.numel()} rewards do not divide into groups of {group_size}; expected whole, contiguous groups"
        )
    grouped_PG = rewards_B.double().reshape(-1, group_size)
    return grouped_PG.where(grouped_PG.isfinite(), float("nan"))


def centred(rewards_B: Tensor, group_size: int) -> Tensor:
    """Reward minus the mean of its group's scorable rewards; exactly 0 in a group whose rewards are all equal.

    Args:
        rewards_B: (B,) rewards, NaN where unscorable.
        group_size: G, completions per prompt.

    Returns:
        (B,) float64, NaN where unscorable.

    Raises:
        ValueError: if B is not a multiple of G.
    """
    grouped_PG = _grouped(rewards_B, group_size)
    values_PG = grouped_PG - grouped_PG.nanmean(dim=1, keepdim=True)
    flat_P1 = ~has_spread(rewards_B, group_size).view(-1, group_size)[:, :1]
    return torch.where(flat_P1 & ~grouped_PG.isnan(), 0.0, values_PG).flatten()


def group_std(rewards_B: Tensor, group_size: int) -> Tensor:
    """Standard deviation (n - 1 in the denominator) of each row's group; 0 with fewer than two scorable rewards.

    Args:
        rewards_B: (B,) rewards, NaN where unscorable.
        group_size: G, completions per prompt.

    Returns:
        (B,) float64.
    """
    values_PG = centred(rewards_B, group_size).view(-1, group_size)
    count_P = (~values_PG.isnan()).sum(dim=1)
    std_P = (values_PG.nan_to_num(0.0).square().sum(dim=1) / (count_P - 1).clamp(min=1)).sqrt()
    return std_P.repeat_interleave(group_size)


def scorable_count(rewards_B: Tensor, group_size: int) -> Tensor:
    """(B,) number of scorable rewards in each row's group."""
    return (~_grouped(rewards_B, group_size).isnan()).sum(dim=1).repeat_interleave(group_size)


def has_spread(rewards_B: Tensor, group_size: int) -> Tensor:
    """(B,) bool: whether the scorable rewards of a row's group differ, i.e. whether the group is informative."""
    grouped_PG = _grouped(rewards_B, group_size)
    lowest_P = grouped_PG.nan_to_num(nan=float("inf")).amin(dim=1)
    highest_P = grouped_PG.nan_to_num(nan=float("-inf")).amax(dim=1)
    return (highest_P > lowest_P).repeat_interleave(group_size)
