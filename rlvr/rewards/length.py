"""Length penalty: long completions pay, compared with their siblings or with a target."""

from dataclasses import dataclass

from rlvr.errors import UserError
from rlvr.registry import variant
from rlvr.rewards.base import Reward, Scored


@variant("reward", "length")
@dataclass
class Length(Reward):
    """Added to another reward with `+reward.length={weight: 0.1}`.

    Without a target: 0 for the shortest completion of a prompt and -1 for the longest, linearly between. With a target:
    minus the distance from it, as a share of it, not below -1. It does not look at verdicts, so keep its weight small:
    a short wrong answer must not beat a long right one.

    Attributes:
        target: tokens that a completion should have; None to compare the completions of one prompt.
        only_shorten: with a target, do not punish completions that are shorter.
    """

    target: int | None = None
    only_shorten: bool = True

    def __post_init__(self) -> None:
        if self.target is not None and self.target < 1:
            raise UserError(f"reward.length.target is {self.target}; expected 1 token or more, or null for none")

    @property
    def two_sided(self) -> bool:
        return False  # never above 0

    def __call__(self, batch: Scored) -> list[float | None]:
        if self.target is not None:
            return [self._distance(length, self.target) for length in batch.lengths]
        # By group, not by gold: other prompts may share a gold, and which of them stand on this rank is chance.
        groups = [batch.lengths[rows] for rows in batch.groups()]
        return [_relative(length, min(group), max(group)) for group in groups for length in group]

    def _distance(self, length: int, target: int) -> float:
        over = length - target
        return -min(1.0, (max(over, 0) if self.only_shorten else abs(over)) / target)


def _relative(length: int, shortest: int, longest: int) -> float:
    return (shortest - length) / (longest - shortest) if longest > shortest else 0.0
