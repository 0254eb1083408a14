"""Pay for a right answer, and nothing else: the verifiable reward."""

from dataclasses import dataclass, field

from rlvr.errors import UserError
from rlvr.registry import variant
from rlvr.rewards.base import Reward, Scored
from rlvr.rewards.grade import grade_many
from rlvr.rewards.verdict import Verdict


@variant("reward", "accuracy")
@dataclass
class Accuracy(Reward):
    """Chosen with `reward=accuracy`. A truncated completion counts as wrong, whatever it boxed on the way.

    Attributes:
        correct: paid for a right answer.
        wrong: paid for anything else; DAPO pays -1 (arXiv 2503.14476, eq. 7).
        verdicts: of the last batch, one a completion.
    """

    correct: float = 1.0
    wrong: float = 0.0
    verdicts: list[Verdict] = field(default_factory=list, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.correct > self.wrong:
            raise UserError(
                f"reward.accuracy.correct is {self.correct} and reward.accuracy.wrong {self.wrong}; expected "
                "correct > wrong, e.g. 1 and 0"
            )

    def __call__(self, batch: Scored) -> list[float | None]:
        self.verdicts = grade_many(batch.completions, batch.golds, batch.truncated)
        return [self.correct if verdict.correct else self.wrong for verdict in self.verdicts]
