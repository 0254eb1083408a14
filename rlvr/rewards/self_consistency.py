"""Pay an answer for the agreement it finds in its own group: a reward without labels."""

from collections import Counter
from dataclasses import dataclass

from rlvr.errors import UserError
from rlvr.registry import variant
from rlvr.rewards.answer_classes import answer_names
from rlvr.rewards.base import Reward, Scored
from rlvr.rewards.extract import extract
from rlvr.rewards.policy import Policy


@variant("reward", "self_consistency")
@dataclass
class SelfConsistency(Reward):
    """Chosen with `reward=self_consistency`. The share of a prompt's completions that give the same answer.

    The baseline SC-RL of arXiv 2505.15134. Answers are the same where the grader says so; the gold is not read. A
    completion without an answer, or cut at the length limit, gives none: it is paid 0 and still counts in the share.

    Attributes:
        majority: pay 1 for the most frequent answer and 0 for the others, instead of shares; answers that are equally
            frequent are all paid.
        extract: where the answer stands, as in `reward.accuracy`.
        think: what of the completion is read, as in `reward.accuracy`.
        workers: processes that compare answers at a time; None for one a core. No value depends on it.
    """

    majority: bool = False
    extract: str = "boxed"
    think: str = "after"
    workers: int | None = None

    def __post_init__(self) -> None:
        if self.workers is not None and self.workers < 1:
            raise UserError(
                f"reward.self_consistency.workers is {self.workers}; expected 1 or more, or null for one a core"
            )
        try:
            self._policy()
        except UserError as error:
            raise UserError(f"reward.self_consistency.{error}") from None

    def _policy(self) -> Policy:
        return Policy(extract=self.extract, think=self.think)

    @property
    def two_sided(self) -> bool:
        return self.majority  # every answer's share is above 0

    def __call__(self, batch: Scored) -> list[float | None]:
        answers, policy = list[str | None](), self._policy()
        for completion, truncated in zip(batch.completions, batch.truncated, strict=True):
            found = extract(completion, policy)
            answers.append(None if truncated or found.status else found.text)
        groups = [answers[rows] for rows in batch.groups()]
        names = answer_names([[text for text in group if text is not None] for group in groups], workers=self.workers)
        return [value for group, name in zip(groups, names, strict=True) for value in self._paid(group, name)]

    def _paid(self, group: list[str | None], names: dict[str, str]) -> list[float | None]:
        """The rewards of one group: its answers, and the class of each."""
        votes = Counter(names[text] for text in group if text is not None)
        most = max(votes.values(), default=0)
        counts = [0 if text is None else votes[names[text]] for text in group]
        if self.majority:
            return [float(count > 0 and count == most) for count in counts]
        return [count / len(group) for count in counts]
