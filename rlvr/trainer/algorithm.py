"""An algorithm is three answers: how much credit, which tokens, what is minimised."""

from dataclasses import dataclass, field
from typing import Any

from rlvr.advantages.base import Advantage
from rlvr.advantages.grpo import GRPO
from rlvr.errors import UserError
from rlvr.objectives.base import Objective
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
    objective: Objective = field(default_factory=Clipped)

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
        self._check_credit()

    def _check_credit(self) -> None:
        advantage = getattr(self.advantage, "name", type(self.advantage).__name__)
        if self.advantage.needs_scores and self.selection.candidates != "all":
            raise UserError(
                f"advantage={advantage} with selection.candidates={self.selection.candidates}; it compares the "
                "policy's own numbers, in groups whose verdicts are equal too: set selection.candidates=all"
            )
        if not self.objective.uses_advantages and (self.advantage.uses_rewards or self.advantage.needs_scores):
            objective = getattr(self.objective, "name", type(self.objective).__name__)
            raise UserError(
                f"advantage={advantage} with objective={objective}, which looks at no credit; set advantage=constant"
            )

    @property
    def divides_by_kept(self) -> bool:
        """Whether the policy term is divided by kept tokens (arXiv 2506.01939v2, eq. 6) rather than by all."""
        return self.selection.normalizer != "all"

    @property
    def uses_rewards(self) -> bool:
        """Whether rewards shape the training, as credit or by choosing which groups vote; else they are only logged."""
        return self.advantage.uses_rewards or self.selection.candidates == "informative"

    def check_group_size(self, group_size: int, vllm: bool = False) -> None:
        """Refuse one completion per prompt where completions are compared, or where vLLM samples.

        Args:
            group_size: G, completions per prompt.
            vllm: whether vLLM samples.

        Raises:
            UserError: with the reason, and what to set.
        """
        if group_size >= 2:
            return
        if group_size < self.advantage.least_group:
            raise UserError(
                f"rollouts.num_generations is {group_size} with advantage={getattr(self.advantage, 'name', '')}, which "
                f"compares the completions of a prompt; expected at least {self.advantage.least_group}"
            )
        if self.selection.candidates == "informative":
            raise UserError(
                f"rollouts.num_generations is {group_size} with selection.candidates=informative; the verdicts of one "
                "completion never differ: set selection.candidates=all, or rollouts.num_generations=2 or more"
            )
        if vllm:
            raise UserError(
                f"rollouts.num_generations is {group_size} with rollouts.backend=vllm; TRL asks vLLM for each prompt "
                "once per 2 rows, so neighbouring prompts would be lost: set rollouts.num_generations=2 or more, or "
                "rollouts.backend=transformers"
            )


def named_algorithm(name: str) -> Algorithm:
    """The algorithm that `configs/algorithm/<name>.yaml` composes.

    Raises:
        UserError: for an unknown name, with the known ones.
    """
    from rlvr.config.compose import compose

    config: Any = compose([f"algorithm={name}"])
    return Algorithm(config.advantage, config.selection, config.objective)
