"""No reward: for algorithms that learn from the policy itself, on problems without right answers."""

from dataclasses import dataclass
from typing import ClassVar

from rlvr.registry import variant
from rlvr.rewards.base import Reward, Scored


@variant("reward", "none")
@dataclass
class NoReward(Reward):
    """Chosen with `reward=none`: 0 for every completion, since TRL asks for a reward; its metrics are not logged."""

    says_nothing: ClassVar[bool] = True

    @property
    def two_sided(self) -> bool:
        return False

    def __call__(self, batch: Scored) -> list[float | None]:
        return [0.0] * len(batch.completions)
