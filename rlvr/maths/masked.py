"""Statistics over the positions of a mask."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def reduce_sum(values: Tensor, process_group: Any = None) -> Tensor:
    """Sum a tensor over the ranks of a process group, in place; with `None` it stays local.

    Args:
        values: a tensor of the same shape on every rank.
        process_group: a torch.distributed group, or None for this process alone.

    Returns:
        The same tensor, summed.
    """
    if process_group is not None:
        dist.all_reduce(values, group=process_group)
    return values


def masked_mean(values: Tensor, mask: Tensor, process_group: Any = None) -> Tensor:
    """Mean of the values where the mask is true, over all ranks; 0 where nothing is true. A statistic, not a loss.

    Args:
        values: (...) numbers; what stands outside the mask is ignored, NaN included.
        mask: (...) bool, the shape of `values`.
        process_group: ranks to pool, or None.

    Returns:
        Scalar, float64.
    """
    inside = torch.where(mask, values, 0).double().sum()
    total, count = reduce_sum(torch.stack([inside, mask.sum().double()]), process_group)
    return total / count.clamp(min=1)


def last_true(mask_BT: Tensor) -> Tensor:
    """Number of leading columns that hold every true value of a row, i.e. the last true index plus one.

    Args:
        mask_BT: (B, T) bool.

    Returns:
        (B,) int64 between 0 and T; 0 for a row without a true value.
    """
    columns = torch.arange(1, mask_BT.shape[1] + 1, device=mask_BT.device)
    nothing_B1 = columns.new_zeros(mask_BT.shape[0], 1)  # a column for rows of no tokens at all
    return torch.cat([nothing_B1, mask_BT * columns], dim=1).amax(dim=1)
