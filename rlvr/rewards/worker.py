"""The processes that compare answers: one loads math-verify once, and forks workers that may hang or die.

Started as `python -m rlvr.rewards.worker PARENT MEMORY DECIDE` with a socket as standard input; see `nursery.py` for
the other side. The nursery imports sympy (0.6 s), so that a worker is ready in milliseconds.
A worker has no more than its socket: it may write no file, start no process, and grow to MEMORY bytes.

Nobody is left behind: the nursery ends when its socket closes or its parent has gone, and takes its workers along. On
Linux the kernel ends them even if the nursery is killed; elsewhere their limit of CPU seconds does.
"""

import contextlib
import ctypes
import gc
import importlib
import math
import os
import resource
import select
import signal
import socket
import sys
import time
from collections.abc import Callable

from rlvr.rewards.policy import DEFAULT, Policy
from rlvr.rewards.protocol import FORK, KILL, ORDER, pack, receive

_PR_SET_PDEATHSIG = 1
_LOOK_SECONDS = 0.5
_ORPHAN_SECONDS = 5
_REASON_CHARACTERS = 200

Decide = Callable[[str, tuple[str, ...], Policy], tuple[str, str]]


def _warm_up(path: str) -> Decide:
    """Load everything that a comparison needs, by making one of each common kind."""
    module, _, name = path.partition(":")
    decide = getattr(importlib.import_module(module), name)
    for answer, gold in (("2x", r"\frac{4x}{2}"), (r"\{1,2\}", r"\{2,1\}"), ("(1,2]", "(1,2]"), (r"\sqrt{8}", "2.8")):
        with contextlib.suppress(Exception):  # the warm-up judges nothing
            decide(answer, (gold,), DEFAULT)
    return decide


def _die_with(parent: int) -> None:
    """Ask the kernel to kill this process when its parent ends; Linux only."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended in the meantime
        os._exit(0)


def _limit(memory: int) -> None:
    """No file, no process, no core dump, and so much memory. What cannot be limited here stays as it is."""
    limits = {resource.RLIMIT_AS: memory, resource.RLIMIT_FSIZE: 0, resource.RLIMIT_CORE: 0, resource.RLIMIT_NPROC: 0}
    for kind, value in limits.items():
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(kind, (value, value))


def _limit_cpu(seconds: float) -> None:
    """The kernel ends a comparison that nobody is left to end."""
    spent = time.process_time()
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(spent + seconds) + _ORPHAN_SECONDS, hard))


def _outcome(decide: Decide, answer: str, golds: list[str], policy: Policy) -> tuple[str, str]:
    try:
        return decide(answer, tuple(golds), policy)
    except MemoryError:
        return "crash", "out of memory"
    except Exception as error:  # whatever sympy raises on a strange answer is that answer's verdict
        text = " ".join(f"{type(error).__name__}: {error}".split())
        return "crash", text.removesuffix(": ")[:_REASON_CHARACTERS]


def _serve(connection: socket.socket, decide: Decide) -> None:
    """Answer one request after the other, until the other side has gone or memory was short."""
    received = bytearray()
    connection.sendall(pack({"pid": os.getpid()}))
    while (request := receive(connection, received)) is not None:
        _limit_cpu(request["limit"])
        started = time.perf_counter()
        status, reason = _outcome(decide, request["answer"], request["golds"], Policy(**request["policy"]))
        seconds = time.perf_counter() - started
        spent = (status, reason) == ("crash", "out of memory")
        connection.sendall(pack({"status": status, "reason": reason, "seconds": seconds, "last": spent}))
        if spent:
            return


class Forker:
    """The nursery: forks workers and kills them.

    Args:
        control: orders come from here.
        parent: process id of the one that gives them.
        memory: bytes of a worker.
        decide: what workers run.
    """

    def __init__(self, control: socket.socket, parent: int, memory: int, decide: Decide) -> None:
        self.control, self.parent, self.memory, self.decide = control, parent, memory, decide
        self.children: set[int] = set()
        self.wake, self.alarm = os.pipe()
        os.set_blocking(self.alarm, False)
        os.set_blocking(self.wake, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self.alarm, warn_on_full_buffer=False)

    def run(self) -> None:
        """Follow orders until they end."""
        while os.getppid() == self.parent:
            readable, _, _ = select.select([self.control.fileno(), self.wake], [], [], _LOOK_SECONDS)
            if self.wake in readable:
                os.read(self.wake, 4096)
            self._reap()
            if self.control.fileno() in readable and not self._obey():
                break
        for pid in self.children:
            os.kill(pid, signal.SIGKILL)

    def _reap(self) -> None:
        while self.children:
            pid, _ = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            self.children.discard(pid)

    def _obey(self) -> bool:
        """One order; False when there will be no more."""
        try:
            order, descriptors, _, _ = socket.recv_fds(self.control, ORDER.size, 1)
        except ConnectionError:
            return False
        if len(order) < ORDER.size:
            return False
        kind, pid = ORDER.unpack(order)
        if kind == FORK and descriptors:
            self._fork(descriptors[0])
        elif kind == KILL and pid in self.children:  # not reaped yet, so the number is still this child's
            os.kill(pid, signal.SIGKILL)
        return True

    def _fork(self, descriptor: int) -> None:
        nursery = os.getpid()
        pid = os.fork()
        if pid:
            self.children.add(pid)
            os.close(descriptor)
            return
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            self.control.close()
            os.close(self.wake)
            os.close(self.alarm)
            _die_with(nursery)
            _limit(self.memory)
            _serve(socket.socket(fileno=descriptor), self.decide)
        except OSError:  # the other side went away in the middle of a frame
            pass
        finally:
            os._exit(0)


def main(arguments: list[str]) -> int:
    """Load what comparisons need, then fork workers on demand."""
    parent, memory, path = int(arguments[0]), int(arguments[1]), arguments[2]
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    control = socket.socket(fileno=0)
    try:
        decide = _warm_up(path)
    except Exception as error:  # told to the parent, who has somebody to tell
        with contextlib.suppress(OSError):
            control.sendall(f"{type(error).__name__}: {error}".encode("utf-8", "replace")[:4000])
        return 1
    gc.collect()
    gc.freeze()  # pages that the collector never touches stay shared between workers
    Forker(control, parent, memory, decide).run()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
