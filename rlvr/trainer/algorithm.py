"""An algorithm is three answers: how much credit, which tokens, what is minimised."""

from dataclasses import dataclass, field
from typing import Any

from rlvr.advantages.base import Advantage
from rlvr.advantages.grpo import GRPO
from rlvr.errors import UserError
from rlvr.objectives.clipped import Clipped
from rlvr.selection.base import Selection
from rlvr.selection.top_entropy import TopEntropy


@dataclass
class Algorithm:
    """What the trainer optimises; it does not know the algorithm's name.

    Attributes:
        advantage: credit per completion or per token.
        selection: which tokens carry gradient.
        objective: the token loss and its denominator.

    Raises:
        UserError: where the three contradict each other.
    """

    advantage: Advantage = field(default_factory=GRPO)
    selection: Selection = field(default_factory=TopEntropy)
    objective: Clipped = field(default_factory=Clipped)

    def __post_init__(self) -> None:
        released = self.selection.normalizer == "released"
        if released and self.objective.reduction != "token_mean":
            raise UserError(
                f"selection.normalizer=released with objective.reduction={self.objective.reduction}; the released "
                "code averages over tokens: set objective.reduction=token_mean"
            )
        if released and self.objective.beta > 0:
            raise UserError(
                f"selection.normalizer=released with objective.beta={self.objective.beta}; the released code has no "
                "KL term: set objective.beta=0, or selection.normalizer=kept"
            )

        if self.selection.inside_loss and self.objective.beta > 0 and self.objective.kl_tokens == "kept":
            raise UserError(
                f"objective.kl_tokens=kept with selection.scope={self.selection.scope}; the KL term's tokens must be "
                "known before the loss: set objective.kl_tokens=all, or selection.scope=rollout"
            )

    @property
    def divides_by_kept(self) -> bool:
        """Whether the policy term is divided by kept tokens (arXiv 2506.01939v2, eq. 6) rather than by all."""
        return self.selection.normalizer != "all"


def named_algorithm(name: str) -> Algorithm:
    """The algorithm that `configs/algorithm/<name>.yaml` composes.

    Raises:
        UserError: for an unknown name, with the known ones.
    """
    from rlvr.config.compose import compose

    config: Any = compose([f"algorithm={name}"])
    return Algorithm(config.advantage, config.selection, config.objective)
