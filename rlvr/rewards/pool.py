"""A pool of processes that compare answers and can be killed: no answer can hang, kill or swell the process that asks.

Usable from any thread, after a fork, and in notebooks: workers are separate interpreters, started when the first answer
needs one. No signal is used in the asking process. Answers of one pool's batches are compared one batch at a time.
"""

import atexit
import os
import select
import threading
import time
import weakref
from collections import Counter, defaultdict, deque
from collections.abc import Sequence
from dataclasses import asdict
from types import TracebackType

from rlvr.errors import UserError
from rlvr.rewards.breaker import Breaker, Limits
from rlvr.rewards.cores import usable_cores
from rlvr.rewards.nursery import Nursery, Worker
from rlvr.rewards.policy import Policy
from rlvr.rewards.protocol import Outcome, Task

MEMORY = 1 << 30
"""Bytes a worker may grow to."""

RETRIES = 5
"""How often a task is given to another worker because its own died: nothing is lost where workers die by accident. Less
often if the deaths took its deadline together."""

START_SECONDS = 120.0
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
            batch = _Batch(self, tasks, policy, breaker, workers or usable_cores())
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

    def close(self) -> None:
        """End all workers. The pool can be used again; it starts new ones."""
        with self._lock:
            for worker in list(self._workers):
                self.drop(worker)
            if self._nursery is not None:
                self._nursery.close()
                self._nursery = None

    def forget(self) -> None:
        """In a forked copy of the process: leave the workers to the original, and start own ones when needed."""
        for worker in self._workers:
            worker.connection.close()
        if self._nursery is not None:
            self._nursery.forget()
        self._reset()


class _Batch:
    """The tasks of one call while they run. One thread, which holds the pool's lock."""

    def __init__(self, pool: Pool, tasks: Sequence[Task], policy: Policy, breaker: Breaker, width: int) -> None:
        self.pool, self.tasks, self.breaker, self.width = pool, tasks, breaker, width
        self.policy = asdict(policy)
        self.fresh = deque(range(len(tasks)))
        self.again: deque[tuple[int, float]] = deque()  # whose worker died, with their limit
        self.deaths: Counter[int] = Counter()
        self.spent: defaultdict[int, float] = defaultdict(float)  # seconds in workers that died
        self.limits: dict[int, float] = {}  # of the tasks at work
        self.started = time.monotonic()

    def run(self) -> None:
        """Until every task has an outcome or is sure to be refused."""
        while True:
            self._hand_out()
            if not self.limits and not self.again and not self.fresh:
                return
            poll, workers = select.poll(), {worker.fileno(): worker for worker in self.pool.workers}
            for descriptor, worker in workers.items():
                poll.register(descriptor, select.POLLIN | (select.POLLOUT if worker.sending else 0))
            for descriptor, events in poll.poll(self._patience() * 1000):
                self._attend(workers[descriptor], events)
            self._expire()

    def _next(self) -> tuple[int, float] | None:
        """The next task to run, with its limit."""
        if self.again:
            return self.again.popleft()
        while self.fresh:
            index = self.fresh.popleft()
            limit = self.breaker.limit(index)
            if limit is not None:
                return index, limit
        return None

    def _hand_out(self) -> None:
        idle = [worker for worker in self.pool.workers if worker.pid is not None and worker.task is None]
        for worker in idle[: max(0, self.width - len(self.limits))]:
            if (due := self._next()) is None:
                break
            index, limit = due
            task, self.limits[index] = self.tasks[index], limit
            worker.ask(index, {"answer": task.answer, "golds": task.golds, "policy": self.policy}, limit)
        wanted = min(self.width, len(self.limits) + len(self.again) + len(self.fresh))
        while len(self.pool.workers) < wanted and (self.again or self.fresh):
            if self.pool.hire() is None:
                continue  # the nursery had ended; the next one is asked
            self.started = time.monotonic()

    def _patience(self) -> float:
        now = time.monotonic()
        due = min((worker.expires for worker in self.pool.workers), default=float("inf"))
        return max(0.0, min(due - now, 1.0))

    def _attend(self, worker: Worker, events: int) -> None:
        if worker not in self.pool.workers:  # the same round has dropped it
            return
        if events & select.POLLOUT:
            worker.flush()
        if not events & ~select.POLLOUT:
            return
        try:
            message = worker.read()
        except EOFError:
            self._died(worker)
            return
        if message is None:
            return
        if "pid" in message:
            self.pool.ready(worker, message["pid"])
            return
        outcome = Outcome(message["status"], message["reason"], message["seconds"])
        self._done(worker, outcome)
        if message["last"]:
            self.pool.drop(worker)

    def _done(self, worker: Worker, outcome: Outcome) -> None:
        if worker.task is not None:
            self.breaker.note(worker.task, outcome)
            self.limits.pop(worker.task)
        worker.task, worker.expires = None, float("inf")

    def _died(self, worker: Worker) -> None:
        """A worker ended by itself: its task goes to another, until it has killed too many."""
        index, started = worker.task, worker.pid is not None
        if index is not None:
            limit = self.limits[index]
            self.deaths[index] += 1
            self.spent[index] += limit - (worker.expires - time.monotonic())
            if self.deaths[index] > RETRIES or self.spent[index] > limit:
                self._done(worker, Outcome("crash", "the comparison ended its process", self.spent[index]))
            else:
                self.again.append((index, self.limits.pop(index)))
                worker.task = None
        self.pool.drop(worker)
        if not started:
            self.pool.failed_start()

    def _expire(self) -> None:
        now = time.monotonic()
        for worker in [worker for worker in self.pool.workers if worker.expires <= now]:
            limit = self.limits[worker.task] if worker.task is not None else 0.0
            self._done(worker, Outcome("timeout", "", limit))
            self.pool.drop(worker)
        waits = any(worker.pid is None for worker in self.pool.workers)
        if waits and not self.limits and now - self.started > START_SECONDS:
            raise RuntimeError(f"no process that compares answers was ready after {START_SECONDS:g} s")


def _forget_all() -> None:
    for pool in list(_POOLS):
        pool.forget()


def close_all() -> None:
    """End the workers of every pool of this process."""
    for pool in list(_POOLS):
        pool.close()


os.register_at_fork(after_in_child=_forget_all)
atexit.register(close_all)

SHARED = Pool()
"""The pool of this process."""
