"""Run a function on several gloo processes, for tests: `run_ranks(2, function, *args)`.

The processes are forked, so torch is imported once and the function may be a closure. Results travel back by pickle.
"""

import faulthandler
import multiprocessing
import os
import pickle
import signal
import socket
import tempfile
import time
import traceback
from collections.abc import Callable
from datetime import timedelta
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

GRACE_SECONDS = 5.0
"""How long the other ranks may still report after one of them failed: they usually wait for it in a collective."""


def run_ranks(ranks: int, function: Callable[..., Any], *args: Any, timeout: float = 120.0) -> list[Any]:
    """Call `function(rank, *args)` on `ranks` forked processes of one gloo process group.

    In a child `torch.distributed` is initialised, so `dist.group.WORLD` is the group; RANK, LOCAL_RANK, WORLD_SIZE and
    MASTER_ADDR/PORT are set as torchrun would, and torch uses one thread. What the function does to global state stays
    in the child.

    Args:
        ranks: number of processes.
        function: called on every rank; its result must pickle.
        args: passed on, inherited by the fork (not pickled).
        timeout: seconds for everything; the group's collectives give up after the same time.

    Returns:
        The results in rank order.

    Raises:
        RuntimeError: if a rank raised, died or did not finish in time; the message holds each rank's traceback.
    """
    context = multiprocessing.get_context("fork")
    threads = torch.get_num_threads()
    # A forked child must not enter an OpenMP region wider than one thread: the parent's worker threads are not there.
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="ranks_") as folder:
        port = _free_port()
        pipes = [context.Pipe(duplex=False) for _ in range(ranks)]
        processes = [
            context.Process(
                target=_child, args=(rank, ranks, folder, port, timeout, writer, function, args), daemon=False
            )
            for rank, (_, writer) in enumerate(pipes)
        ]
        try:
            for process in processes:
                process.start()
            for _, writer in pipes:
                writer.close()  # otherwise the death of a child would not be seen as the end of its pipe
            reports = _collect([reader for reader, _ in pipes], time.monotonic() + timeout)
            _dump_stacks([process for rank, process in enumerate(processes) if rank not in reports])
            return _results(reports, processes, Path(folder), timeout)
        finally:
            _stop(processes)
            torch.set_num_threads(threads)


def _child(
    rank: int,
    ranks: int,
    folder: str,
    port: int,
    timeout: float,
    writer: Connection,
    function: Callable[..., Any],
    args: tuple[Any, ...],
) -> None:
    """What one forked process does: join the group, call the function, report."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(ranks), "LOCAL_WORLD_SIZE": str(ranks)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    torch.set_num_threads(1)
    stacks = open(f"{folder}/stacks_{rank}", "w")  # noqa: SIM115  faulthandler keeps the descriptor
    faulthandler.register(signal.SIGUSR1, file=stacks, all_threads=True)
    try:
        dist.init_process_group(
            "gloo",
            init_method=f"file://{folder}/store",
            rank=rank,
            world_size=ranks,
            timeout=timedelta(seconds=timeout),
        )
        try:
            report = pickle.dumps((True, function(rank, *args)))
        finally:
            dist.destroy_process_group()
    except BaseException:
        report = pickle.dumps((False, traceback.format_exc()))
    writer.send_bytes(report)
    writer.close()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _collect(readers: list[Connection], deadline: float) -> dict[int, tuple[bool, Any]]:
    """Reports by rank until all came or the deadline passed; a rank that died reports a failure without text."""
    reports: dict[int, tuple[bool, Any]] = {}
    while len(reports) < len(readers) and time.monotonic() < deadline:
        pending = [reader for rank, reader in enumerate(readers) if rank not in reports]
        for reader in wait(pending, timeout=deadline - time.monotonic()):
            rank = readers.index(reader)  # type: ignore[arg-type]
            try:
                reports[rank] = pickle.loads(readers[rank].recv_bytes())
            except EOFError:
                reports[rank] = (False, None)
            if not reports[rank][0]:
                deadline = min(deadline, time.monotonic() + GRACE_SECONDS)
    return reports


def _dump_stacks(silent: list[Any]) -> None:
    """Ask the processes that have not reported to write down where they stand."""
    for process in silent:
        if process.is_alive():
            os.kill(process.pid, signal.SIGUSR1)
    if silent:
        time.sleep(0.5)


def _results(reports: dict[int, tuple[bool, Any]], processes: list[Any], folder: Path, timeout: float) -> list[Any]:
    """The results in rank order, or a RuntimeError that shows what every failing rank was doing."""
    problems = []
    for rank, process in enumerate(processes):
        if rank not in reports:
            stacks = folder / f"stacks_{rank}"
            where = stacks.read_text() if stacks.exists() else ""
            problems.append(f"rank {rank} did not finish (limit {timeout:g} s); it stood at:\n{where}")
        elif not reports[rank][0]:
            process.join(GRACE_SECONDS)
            problems.append(f"rank {rank}:\n{reports[rank][1] or f'died with exit code {process.exitcode}'}")
    if problems:
        raise RuntimeError("\n".join(problems))
    return [reports[rank][1] for rank in range(len(processes))]


def _stop(processes: list[Any]) -> None:
    """Wait for the processes that reported; end the ones that hang."""
    for process in processes:
        if process.pid is None:
            continue
        process.join(GRACE_SECONDS / 5)
        if process.is_alive():
            process.kill()
            process.join()
