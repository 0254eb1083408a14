"""How much time hostile answers may take from a batch, decided in row order and so the same for any number of workers.

Workers finish in any order, so what a row may cost cannot depend on what happens to be finished. It depends on the
rows before it: `settle` goes through all rows in order. While the batch runs, `limit` says what is certain already.
It is asked in row order, so every strike it knows of belongs to an earlier row, and strikes that are still to come can
only tighten a limit. A row may run longer than it turns out to have been allowed; then `settle` cuts it.
"""

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from rlvr.rewards.protocol import Outcome

STRIKE = ("timeout", "crash")


@dataclass(frozen=True)
class Limits:
    """What comparisons may cost.

    Attributes:
        deadline: wall seconds for one answer.
        strikes: answers of one gold that may time out or crash before the rest of them is refused; None for any number.
        patience: worker seconds that such answers may take from a batch: then the deadline shrinks to `hurried` of it,
            and after as many seconds again the rest is refused; None for any time.
        hurried: share of the deadline.
    """

    deadline: float = 2.0
    strikes: int | None = 3
    patience: float | None = 30.0
    hurried: float = 0.25

    def at(self, strikes: int) -> float | None:
        """The deadline after so many strikes of a batch; None when no answer is compared any more."""
        if self.patience is None or strikes < self.patience / self.deadline:
            return self.deadline
        hurried = self.deadline * self.hurried
        return hurried if strikes < self.patience / self.deadline + self.patience / hurried else None


class Breaker:
    """Limits and outcomes of the tasks of one batch.

    Args:
        groups: of each task; strikes of one group are counted together.
        limits: what tasks may cost.
    """

    def __init__(self, groups: Sequence[Hashable], limits: Limits) -> None:
        self.groups, self.limits = groups, limits
        self.outcomes: list[Outcome | None] = [None] * len(groups)
        self._strikes: Counter[Hashable] = Counter()
        self._counted = 0

    def _tripped(self, strikes: int) -> bool:
        return self.limits.strikes is not None and strikes >= self.limits.strikes

    def limit(self, index: int) -> float | None:
        """Seconds that a task may run; None if it is certain to be refused. Ask in order."""
        return None if self._tripped(self._strikes[self.groups[index]]) else self.limits.at(self._counted)

    def note(self, index: int, outcome: Outcome) -> None:
        """Keep what came out of a task."""
        self.outcomes[index] = outcome
        group = self.groups[index]
        if outcome.status in STRIKE:
            self._counted += not self._tripped(self._strikes[group])
            self._strikes[group] += 1

    def settle(self) -> list[Outcome]:
        """The outcome of every task, as if they had run one after the other."""
        strikes: Counter[Hashable] = Counter()
        counted, settled = 0, []
        for index, group in enumerate(self.groups):
            limit = self.limits.at(counted)
            if self._tripped(strikes[group]):
                outcome = Outcome("timeout", f"not compared: {self.limits.strikes} answers to this gold failed")
            elif limit is None:
                outcome = Outcome("timeout", "not compared: this batch ran out of time")
            else:
                outcome = self._cut(index, limit)
                struck = outcome.status in STRIKE
                counted += struck
                strikes[group] += struck
            settled.append(outcome)
        return settled

    def _cut(self, index: int, limit: float) -> Outcome:
        outcome = self.outcomes[index]
        if outcome is None:
            raise RuntimeError(f"task {index} was neither run nor refused; please report this with your batch")
        if outcome.status != "crash" and (outcome.status == "timeout" or outcome.seconds > limit):
            return Outcome("timeout", f"the comparison took more than {limit:g} s", outcome.seconds)
        return outcome
