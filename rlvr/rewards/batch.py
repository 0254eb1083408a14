"""The tasks of one call while they run: handed out, watched, killed, given to another worker."""

import select
import time
from collections import Counter, defaultdict, deque
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from rlvr.rewards.breaker import Breaker
from rlvr.rewards.nursery import Worker
from rlvr.rewards.policy import Policy
from rlvr.rewards.protocol import Outcome, Task

if TYPE_CHECKING:
    from rlvr.rewards.pool import Pool

RETRIES = 5
"""How often a task is given to another worker because its own died: nothing is lost where workers die by accident. Less
often if the deaths took its deadline together."""

START_SECONDS = 120.0


class Batch:
    """The tasks of one call while they run. One thread, which holds the pool's lock."""

    def __init__(self, pool: "Pool", tasks: Sequence[Task], policy: Policy, breaker: Breaker, width: int) -> None:
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
