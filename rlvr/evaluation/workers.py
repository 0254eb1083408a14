"""The processes of one evaluation: who they are, what they agree on, how they start."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any

PARENT = "RLVR_PARENT"
"""Process id of the `rlvr` that started this one."""


def _end_with(parent: int) -> None:
    """End this process when its parent has ended without a word: nobody would collect what it draws."""
    while os.getppid() == parent:
        time.sleep(1.0)
    os.kill(os.getpid(), signal.SIGTERM)


class Workers:
    """This process among those that torchrun, `accelerate launch` or `processes=` started."""

    def __init__(self) -> None:
        self.rank = int(os.environ.get("RANK", "0"))
        self.world = int(os.environ.get("WORLD_SIZE", "1"))
        self.is_main = self.rank == 0
        self.state: Any = None
        if PARENT in os.environ:
            threading.Thread(target=_end_with, args=(int(os.environ[PARENT]),), daemon=True).start()
        if self.world > 1:
            import torch
            from accelerate import PartialState

            self.state = PartialState(cpu=not torch.cuda.is_available())

    def share(self, value: Any) -> Any:
        """The main process's value, on every process."""
        if self.state is None:
            return value
        from accelerate.utils import broadcast_object_list

        return broadcast_object_list([value if self.is_main else None])[0]

    def any(self, value: bool) -> bool:
        """Whether it is true on any process."""
        if self.state is None:
            return value
        from accelerate.utils import gather_object

        return any(gather_object([value]))

    def wait(self) -> None:
        """Until all are here."""
        if self.state is not None:
            self.state.wait_for_everyone()

    def close(self) -> None:
        """Leave the group."""
        if self.state is not None:
            self.state.destroy_process_group()


def start_processes(count: int, command: Sequence[str]) -> int:
    """Run `rlvr COMMAND` in several processes that know of each other; the first that fails ends the others.

    Args:
        count: processes on this machine.
        command: arguments of `rlvr`.

    Returns:
        0, or the exit code of the one that failed.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    threads = max(1, (os.cpu_count() or 1) // count)
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(count), PARENT: str(os.getpid())}
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "rlvr.cli", *command],
            env={"OMP_NUM_THREADS": str(threads), **os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in range(count)
    ]
    try:
        while True:
            codes = [process.poll() for process in started]
            failed = [code for code in codes if code]
            if failed or None not in codes:
                return failed[0] if failed else 0
            time.sleep(0.1)
    finally:
        for process in started:
            if process.poll() is None:
                process.terminate()
        for process in started:
            process.wait()
