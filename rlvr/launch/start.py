"""`rlvr train`: train in this process, join the processes that somebody has started, or start them."""

import os
import sys
from collections.abc import Callable

from rlvr.config.schema import RunConfig
from rlvr.errors import UserError
from rlvr.launch.status import DONE, STATUS_DIR, end_soon, flush, own_rank, reporting
from rlvr.launch.world import adopt_slurm, check_launcher, is_rank


def needs_ranks(config: RunConfig) -> bool:
    """Whether a run takes more than the process that was started: DeepSpeed and restarts do so with one rank too."""
    launch = config.launch
    return (launch.ranks or 1) > 1 or launch.max_restarts > 0 or bool(config.deepspeed)


def train_or_launch(read: Callable[[], RunConfig]) -> int:
    """Train as configured, here or in processes that are started for it; returns the exit code.

    Args:
        read: gives the configuration.

    Raises:
        UserError: for anything that does not fit.
    """
    adopt_slurm(os.environ)
    if is_rank(os.environ):
        return _as_rank(read)
    config = read()
    check_launcher(os.environ, config.launch, config.deepspeed)
    if config.launch.kind == "slurm" and not _in_own_job():
        from rlvr.launch.slurm import submit

        submit(config)
        return DONE
    if config.launch.kind == "slurm" or needs_ranks(config):
        from rlvr.launch.ranks import start_ranks

        return start_ranks(config)
    from rlvr.train import train

    train(config)
    return DONE


def _in_own_job() -> bool:
    from rlvr.launch.slurm import JOB

    return JOB in os.environ


def _as_rank(read: Callable[[], RunConfig]) -> int:
    """One of the processes of a job: meet the others, compare, train, leave together."""
    code = 1
    try:
        with reporting():
            config = read()
            _join(config)
            from rlvr.launch.process_group import stop
            from rlvr.train import train

            train(config)
            stop()
            code = DONE
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
        raise
    except RuntimeError as error:
        from rlvr.launch.process_group import lost_others

        lost = lost_others(error, own_rank())
        if lost is None:
            raise
        print(f"rlvr: {lost}", file=sys.stderr)
    finally:
        flush()
        if STATUS_DIR in os.environ:
            end_soon(code)
    return code


def _join(config: RunConfig) -> None:
    """Meet the other ranks, and see that all were started alike.

    Raises:
        UserError: if they cannot meet, or are not what was asked for.
    """
    check_launcher(os.environ, config.launch, config.deepspeed)
    import torch

    from rlvr.launch.agreement import check_start
    from rlvr.launch.process_group import back_end_of, start

    on_gpu = torch.cuda.is_available()
    if not start(config.launch, config.deepspeed, on_gpu):
        raise UserError("RANK is set, but there is no process group; start with torchrun or launch.processes=N")
    check_start(config, back_end_of(on_gpu))
