"""The process group of a run, made before TRL's arguments: with a time-out, and the back end that was asked for.

Left to TRL, the time-out is ignored without a GPU, and ZeRO-3 under torchrun believes in a world of one process.
"""

import logging
import os
import re
import traceback
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from rlvr.errors import UserError
from rlvr.launch.network import check_network, choose_interface
from rlvr.launch.section import LaunchSection
from rlvr.launch.world import is_rank, node_count


def back_end_of(on_gpu: bool) -> str:
    """The back end of `torch.distributed` for a device."""
    return "nccl" if on_gpu else "gloo"


def _choose_gpu(environment: Mapping[str, str]) -> None:
    import torch

    local, there = int(environment["LOCAL_RANK"]), torch.cuda.device_count()
    if local >= there:
        raise UserError(
            f"this node has {there} GPUs, but process {local} (from 0) is to have one of its own; set "
            f"launch.processes to at most {there}, or look at CUDA_VISIBLE_DEVICES"
        )
    torch.cuda.set_device(local)


def _with_deepspeed(back_end: str, timeout: timedelta) -> None:
    if back_end == "gloo":
        # Read when deepspeed is first imported, which may be long before a device is chosen.
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    import deepspeed
    import torch.distributed as dist

    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    if back_end == "gloo":
        # An operation for shared memory, compiled at first use: a minute, and a compiler that may be missing.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    deepspeed.init_distributed(dist_backend=back_end, auto_mpi_discovery=False, timeout=timeout)
    # ZeRO reduces and gathers in a group of its own, which it would make without a time-out: torch's is 30 minutes.
    deepspeed.utils.groups._WORLD_GROUP = dist.new_group(range(dist.get_world_size()), timeout=timeout)


def start(section: LaunchSection, deepspeed: Mapping[str, Any], on_gpu: bool) -> bool:
    """Join the other processes of the job; whether there are any to join.

    Args:
        section: the time-out, and the interface between nodes.
        deepspeed: the DeepSpeed configuration; empty for none.
        on_gpu: whether the run is on GPUs.

    Raises:
        UserError: if the machines cannot meet, if a process has no GPU, or if the others did not come in time.
    """
    import torch.distributed as dist

    if not is_rank(os.environ) or dist.is_initialized():
        return dist.is_initialized()
    back_end, timeout = back_end_of(on_gpu), timedelta(seconds=section.timeout_seconds)
    choose_interface(os.environ, section.interface)
    check_network(os.environ, node_count(os.environ), back_end)
    if on_gpu:
        _choose_gpu(os.environ)
    try:
        if deepspeed:
            _with_deepspeed(back_end, timeout)
        else:
            dist.init_process_group(back_end, timeout=timeout)
    except (RuntimeError, ValueError) as error:
        place = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        reason = " ".join(str(error).splitlines()[0].split())
        raise UserError(
            f"the {os.environ['WORLD_SIZE']} processes did not meet at {place} within launch.timeout_seconds="
            f"{section.timeout_seconds}: {reason}; see that all are started and that the port is free and reachable"
        ) from error
    return True


def wait() -> None:
    """Until all ranks are here; at once for a single process."""
    import torch.distributed as dist

    if dist.is_available() and dist.is_initialized():
        dist.barrier()


def stop() -> None:
    """Leave the process group together, after work that went well."""
    import torch.distributed as dist

    if dist.is_available() and dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()


LOST = re.compile(
    r"connection (?:closed|reset|refused)|timed? ?out|broken pipe|socket|remote peer|unhandled system error"
    r"|no route to host|network is unreachable",
    re.IGNORECASE,
)
"""What gloo, NCCL and the store say where another rank can no longer be reached."""


def lost_others(error: BaseException, rank: int) -> str | None:
    """In one line, that a collective failed because another rank is gone; None for an error of another kind.

    Args:
        error: what a rank ended with.
        rank: this process.
    """
    import torch.distributed as dist

    raised_by = traceback.extract_tb(error.__traceback__)[-1].filename if error.__traceback__ else ""
    of_torch = isinstance(error, dist.DistError) or f"{os.sep}distributed{os.sep}" in raised_by
    if not isinstance(error, RuntimeError) or not of_torch or not LOST.search(str(error)):
        return None
    said = " ".join(str(error).split())
    return (
        f"rank {rank} can no longer reach the others ({said[:160]}); one of them has ended, or stalls, or the network "
        "is cut: look at what each said last and at stacks/ of the run folder, then go on with run.resume=auto"
    )
