"""Pay for a right answer, and nothing else: the verifiable reward."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from rlvr.errors import UserError
from rlvr.registry import variant
from rlvr.rewards.base import Reward, Scored
from rlvr.rewards.grade import grade_many
from rlvr.rewards.policy import DEFAULT, Policy
from rlvr.rewards.verdict import Verdict


@variant("reward", "accuracy")
@dataclass
class Accuracy(Reward):
    """Chosen with `reward=accuracy`. A truncated completion counts as wrong, whatever it boxed on the way.

    Attributes:
        correct: paid for a right answer; above 0, which is what KTAE and dynamic sampling take for right.
        wrong: paid for anything else, at most 0; DAPO pays -1 (arXiv 2503.14476, eq. 7).
        extract: where the answer stands: `boxed`, `answer_line` or `last_number`.
        think: `after` reads what follows the last `</think>`, and an unclosed `<think>` is no answer; `required` is the
            same, and the tag has to be there; `ignore` reads everything.
        tolerance: a decimal within this share of an exact value stands for it; None for never.
        workers: processes that compare answers at a time; None for one a core. No verdict depends on it.
        verdicts: of the last batch, one a completion.
    """

    correct: float = 1.0
    wrong: float = 0.0
    extract: str = "boxed"
    think: str = "after"
    tolerance: float | None = None
    workers: int | None = None
    verdicts: list[Verdict] = field(default_factory=list, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.correct > 0 >= self.wrong:
            raise UserError(
                f"reward.accuracy.correct is {self.correct} and reward.accuracy.wrong {self.wrong}; expected "
                "correct > 0 >= wrong, e.g. 1 and 0: KTAE and dynamic sampling take a verdict above 0 for right"
            )
        if self.workers is not None and self.workers < 1:
            raise UserError(f"reward.accuracy.workers is {self.workers}; expected 1 or more, or null for one a core")
        try:
            self.policy()
        except UserError as error:
            raise UserError(f"reward.accuracy.{str(error).removeprefix('relative_')}") from None

    def policy(self) -> Policy:
        """The rules of grading; evaluation takes the same."""
        return Policy(extract=self.extract, think=self.think, relative_tolerance=self.tolerance)

    def __call__(self, batch: Scored) -> list[float | None]:
        self.verdicts = grade_many(
            batch.completions, batch.golds, batch.truncated, workers=self.workers, policy=self.policy()
        )
        return [self.correct if verdict.correct else self.wrong for verdict in self.verdicts]


def grading_policy(rewards: Iterable[Reward]) -> Policy:
    """The rules of grading of the first reward that grades; the default where none does."""
    return next((reward.policy() for reward in rewards if isinstance(reward, Accuracy)), DEFAULT)
