"""Whether numbers are numbers: neither NaN nor infinite."""

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

Named = Iterable[tuple[str, Tensor | None]]


def all_finite(tensors: Sequence[Tensor]) -> Tensor:
    """() bool: whether every number of every tensor is finite; one pass over them, and no wait for the device."""
    some = [values.detach() for values in tensors if values.numel()]
    if not some:
        return torch.tensor(True)
    return torch.nn.utils.get_total_norm(some, norm_type=math.inf).isfinite()


def first_not_finite(named: Named) -> str | None:
    """The name of the first tensor that holds a number which is not finite; None where all are.

    Args:
        named: names and tensors on one device; what is None, empty or of whole numbers is passed over. Waits for the
            device once.
    """
    some = [
        (name, values.detach())
        for name, values in named
        if values is not None and values.is_floating_point() and values.numel()
    ]
    if not some:
        return None
    bad = torch.stack([~values.isfinite().all() for _, values in some]).tolist()
    return next((name for (name, _), found in zip(some, bad, strict=True) if found), None)
