"""The interface of credit assignment."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from rlvr.maths.rollouts import Rollouts


@dataclass
class Advantage:
    """How much credit each completion, or each token, gets."""

    least_group: ClassVar[int] = 2
    """The smallest G it can be computed for; 2 where completions of a prompt are compared."""

    needs_scores: ClassVar[bool] = False
    """Whether it reads `Rollouts.logps` or `Rollouts.entropies`: every sampled row is then scored."""

    uses_rewards: ClassVar[bool] = True
    """Whether rewards shape it; False needs no right answers."""

    splits_groups: ClassVar[bool] = False
    """Whether it tells right rollouts from wrong ones, by verdicts above 0: see `Reward.two_sided`."""

    def __call__(self, rollouts: Rollouts) -> Tensor:
        """(B,) or (B, T) advantages of this rank's completions, finite, 0 where nobody could score the row."""
        raise TypeError(f"{type(self).__name__} does not say how it assigns credit; define __call__(rollouts)")

    def token_values(self, rollouts: Rollouts) -> Tensor | None:
        """(B, T) what each token adds to its rollout's advantage, for the record; None where it adds nothing."""
        return None
