"""One yes or no that all ranks share."""

from typing import Any

import torch
import torch.distributed as dist


def any_rank(mine: bool | torch.Tensor) -> bool:
    """Whether it is so on any rank; called by all together. One small message, none for a single process.

    Args:
        mine: whether it is so here; a tensor of one element stays on its device until the message is through.
    """
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return bool(mine)
    flag = torch.as_tensor(mine, device=_device()).float().reshape(1)
    dist.all_reduce(flag, op=dist.ReduceOp.MAX)
    return bool(flag.item())


def _device() -> Any:
    """Where the messages of the job's group are read from."""
    return torch.device("cuda", torch.cuda.current_device()) if dist.get_backend() == "nccl" else torch.device("cpu")
