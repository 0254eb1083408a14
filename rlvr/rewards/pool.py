"""A pool of processes that compare answers and can be killed: no answer can hang, kill or swell the process that asks.

Usable from any thread, after a fork, and in notebooks: workers are separate interpreters, started when the first answer
needs one. No signal is used in the asking process. Answers of one pool's batches are compared one batch at a time.
"""

import atexit
import os
import threading
import weakref
from collections.abc import Sequence
from types import TracebackType

from rlvr.errors import UserError
from rlvr.rewards.batch import Batch
from rlvr.rewards.breaker import Breaker, Limits
from rlvr.rewards.cores import usable_cores
from rlvr.rewards.nursery import Nursery, Worker
from rlvr.rewards.policy import Policy
from rlvr.rewards.protocol import Outcome, Task

MEMORY = 1 << 30
"""Bytes a worker may grow to."""

_FAILED_STARTS = 5

_POOLS: "weakref.WeakSet[Pool]" = weakref.WeakSet()


class Pool:
    """Workers that are started on demand and live until `close`.

    Args:
        memory: bytes that a worker may grow to.
        decide: the function that compares, as `module:name`: called with an answer, the forms of its gold and the
            policy, and returning a status and a reason. Workers import it by themselves.
    """

    def __init__(self, memory: int = MEMORY, decide: str = "rlvr.rewards.equivalence:decide") -> None:
        self.memory, self.decide = memory, decide
        self._reset()
        _POOLS.add(self)

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._nursery: Nursery | None = None
        self._workers: list[Worker] = []
        self._failed_starts = 0

    def __enter__(self) -> "Pool":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def compare(
        self, tasks: Sequence[Task], policy: Policy, *, workers: int | None = None, limits: Limits | None = None
    ) -> list[Outcome]:
        """Compare answers with their golds, several at a time.

        Args:
            tasks: different ones; equal tasks are compared twice.
            policy: how strictly.
            workers: processes at a time; None for one a usable core.
            limits: of time.

        Returns:
            An outcome per task, in order, which does not depend on the number of workers.

        Raises:
            UserError: if `workers` is less than 1.
            RuntimeError: if no worker can be started.
        """
        if workers is not None and workers < 1:
            raise UserError(f"workers is {workers}; expected 1 or more, or None for one a core")
        breaker = Breaker([task.golds for task in tasks], limits or Limits())
        with self._lock:
            batch = Batch(self, tasks, policy, breaker, workers or usable_cores())
            try:
                batch.run()
            finally:  # whoever is still at work, after an exception such as Ctrl-C, would answer into the next batch
                for worker in [worker for worker in self._workers if worker.task is not None]:
                    self.drop(worker)
        return breaker.settle()

    def hire(self) -> Worker | None:
        """One more worker, not ready yet; None if the nursery had ended, and a next call will start another."""
        if self._nursery is None:
            self._nursery = Nursery(self.memory, self.decide)
        worker = self._nursery.fork()
        if worker is None:
            self.failed_start(ended=True)
        else:
            self._workers.append(worker)
        return worker

    def drop(self, worker: Worker) -> None:
        """End a worker."""
        self._workers.remove(worker)
        if self._nursery is None:
            worker.connection.close()
        else:
            self._nursery.kill(worker)

    def failed_start(self, ended: bool = False) -> None:
        """A worker or its nursery ended before it was ready: start anew, unless that happens again and again.

        Args:
            ended: the nursery takes no more orders.

        Raises:
            RuntimeError: with what the nursery said.
        """
        self._failed_starts += 1
        nursery, keeps_failing = self._nursery, self._failed_starts >= _FAILED_STARTS
        if nursery is None or (not ended and nursery.alive() and not keeps_failing):
            return
        words = nursery.last_words() if keeps_failing else ""
        self._nursery, self._failed_starts = None, 0 if keeps_failing else self._failed_starts
        for worker in [worker for worker in self._workers if worker.pid is None]:
            self.drop(worker)  # it would have come from this nursery
        nursery.close()
        if keeps_failing:
            raise RuntimeError(
                f"the processes that compare answers do not start ({words or 'they end without a word'}); see whether "
                '`python -c "import math_verify"` works, and whether memory is limited to less than 1 GiB a process'
            )

    def ready(self, worker: Worker, pid: int) -> None:
        """A worker said that it is ready."""
        worker.pid, self._failed_starts = pid, 0

    @property
    def workers(self) -> list[Worker]:
        """The workers there are."""
        return self._workers

    def processes(self) -> list[int]:
        """Process ids of the nursery and of the workers that are ready."""
        nursery = [self._nursery.process.pid] if self._nursery else []
        return nursery + [worker.pid for worker in self._workers if worker.pid is not None]

    def close(self, wait: float = -1) -> None:
        """End all workers. The pool can be used again; it starts new ones.

        Args:
            wait: seconds for a batch that another thread runs; -1 for as long as it takes.
        """
        if not self._lock.acquire(timeout=wait):
            if self._nursery is not None:
                self._nursery.control.close()  # the rest is up to that thread, if it still runs
            return
        try:
            for worker in list(self._workers):
                self.drop(worker)
            if self._nursery is not None:
                self._nursery.close()
                self._nursery = None
        finally:
            self._lock.release()

    def forget(self) -> None:
        """In a forked copy of the process: leave the workers to the original, and start own ones when needed."""
        for worker in self._workers:
            worker.connection.close()
        if self._nursery is not None:
            self._nursery.forget()
        self._reset()


def _forget_all() -> None:
    for pool in list(_POOLS):
        pool.forget()


def close_all() -> None:
    """End the workers of every pool of this process."""
    for pool in list(_POOLS):
        pool.close(wait=1.0)


os.register_at_fork(after_in_child=_forget_all)
atexit.register(close_all)

SHARED = Pool()
"""The pool of this process."""
