"""The parent's side of the processes that compare answers: starting, stopping and talking to them."""

import contextlib
import os
import select
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from rlvr.rewards.protocol import FORK, KILL, ORDER, pack, unpack

_CLOSE_SECONDS = 2.0
_KEPT = ("PATH", "HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "TMPDIR", "VIRTUAL_ENV", "PYTHONHOME", "SYSTEMROOT")
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def environment() -> dict[str, str]:
    """A worker's variables: where Python and this package are, one thread, the same hashes in every process."""
    root = Path(__file__).resolve().parents[2]
    # An installed package is found anyhow, and its folder before the standard library would shadow modules of that.
    paths = [] if root.name in ("site-packages", "dist-packages") else [str(root)]
    paths += filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    threads = dict.fromkeys(_THREADS, "1")
    return {**kept, **threads, "PYTHONPATH": os.pathsep.join(paths), "PYTHONHASHSEED": "0"}


class Worker:
    """One process that compares answers, as the parent sees it.

    Attributes:
        pid: its process id; None until it said that it is ready.
        task: what it works on; None while it waits.
        expires: when that takes too long, on the monotonic clock.
    """

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        self.connection = connection
        self.pid: int | None = None
        self.task: int | None = None
        self.expires = float("inf")
        self._received = bytearray()
        self._unsent = b""

    def fileno(self) -> int:
        """For `select`."""
        return self.connection.fileno()

    @property
    def sending(self) -> bool:
        """Whether part of a request still waits for room in the socket."""
        return bool(self._unsent)

    def ask(self, task: int, request: dict[str, Any], limit: float) -> None:
        """Send a request; never waits."""
        self.task, self.expires, self._unsent = task, time.monotonic() + limit, pack(request | {"limit": limit})
        self.flush()

    def flush(self) -> None:
        """Send what fits. A worker that has gone is noticed when it is read."""
        try:
            self._unsent = self._unsent[self.connection.send(self._unsent) :]
        except BlockingIOError:
            pass
        except OSError:
            self._unsent = b""

    def read(self) -> dict[str, Any] | None:
        """The next message; None if it is not complete yet.

        Raises:
            EOFError: if the worker has gone.
        """
        if (message := unpack(self._received)) is not None:
            return message
        try:
            chunk = self.connection.recv(1 << 16)
        except BlockingIOError:
            return None
        except OSError:
            chunk = b""
        if not chunk:
            raise EOFError
        self._received += chunk
        return unpack(self._received)


class Nursery:
    """A process that has math-verify loaded, and forks workers and kills them when asked.

    Args:
        memory: bytes that a worker may grow to.
        decide: the function that workers run, as `module:name`.
    """

    def __init__(self, memory: int, decide: str) -> None:
        self.control, theirs = socket.socketpair()
        command = [sys.executable, "-P", "-m", "rlvr.rewards.worker", str(os.getpid()), str(memory), decide]
        with theirs:
            self.process = subprocess.Popen(
                command, stdin=theirs.fileno(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment(),
                start_new_session=True, close_fds=True,
            )  # fmt: skip

    def fork(self) -> Worker | None:
        """A new worker, ready as soon as it says so; None if the nursery has ended."""
        mine, theirs = socket.socketpair()
        with theirs:
            try:
                socket.send_fds(self.control, [ORDER.pack(FORK, 0)], [theirs.fileno()])
            except OSError:
                mine.close()
                return None
        return Worker(mine)

    def alive(self) -> bool:
        """Whether it has not ended."""
        return self.process.poll() is None

    def kill(self, worker: Worker) -> None:
        """End a worker, whatever it does. By order, because its process id may be another's by the time it is used."""
        if worker.pid is not None:
            with contextlib.suppress(OSError):
                self.control.sendall(ORDER.pack(KILL, worker.pid))
        worker.connection.close()

    def last_words(self) -> str:
        """Why the nursery ended, where it could say so."""
        words = b""
        with contextlib.suppress(OSError):
            while select.select([self.control], [], [], 0.5)[0] and (chunk := self.control.recv(4096)):
                words += chunk
        return words.decode("utf-8", "replace")

    def close(self) -> None:
        """End it with its workers, and wait until it has ended."""
        self.control.close()
        try:
            self.process.wait(_CLOSE_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def forget(self) -> None:
        """In a forked copy of the parent: let go of what belongs to the parent, and end nothing."""
        self.control.close()
        self.process.returncode = 0
