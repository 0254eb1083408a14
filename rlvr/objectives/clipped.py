"""The clipped surrogate of GRPO, DAPO, Dr. GRPO and RLOO, with an optional KL term: what is minimised."""

from dataclasses import dataclass

import torch
from torch import Tensor

from rlvr.errors import UserError
from rlvr.maths.denominators import REDUCTIONS
from rlvr.maths.ratios import clipped_surrogate, k3_divergence, masked_log_ratio
from rlvr.registry import variant


@variant("objective", "clipped")
@dataclass
class Clipped:
    """Chosen with `objective=clipped`.

    Attributes:
        epsilon: lower clip range.
        epsilon_high: upper clip range; None for the same as `epsilon`.
        dual_clip: bound c > 1 on the loss of a negative advantage, -c A; None for off.
        beta: weight of the KL term against the reference policy; 0 for none.
        kl_tokens: tokens the KL term acts on: `all` (as TRL) or `kept`.
        reduction: what a step's sum is divided by: `token_mean`, `token_mean_rollout`, `sequence_mean`, `constant`.
        mask_truncated: completions cut at the length limit carry no loss and do not vote; they keep their reward in
            the group's baseline (DAPO's overlong filtering).
    """

    epsilon: float = 0.2
    epsilon_high: float | None = None
    dual_clip: float | None = None
    beta: float = 0.0
    kl_tokens: str = "all"
    reduction: str = "token_mean"
    mask_truncated: bool = False

    def __post_init__(self) -> None:
        upper = self.epsilon if self.epsilon_high is None else self.epsilon_high
        if not (0 < self.epsilon < 1 and upper > 0):
            raise UserError(
                f"objective.epsilon is {self.epsilon} and objective.epsilon_high {self.epsilon_high}; expected "
                "0 < epsilon < 1 and epsilon_high > 0, e.g. 0.2 and 0.28"
            )
        if self.dual_clip is not None and not self.dual_clip > 1:
            raise UserError(f"objective.dual_clip is {self.dual_clip}; expected a number above 1, or null for off")
        if not 0 <= self.beta < float("inf"):
            raise UserError(f"objective.beta is {self.beta}; expected 0 or a positive KL weight")
        if self.kl_tokens not in ("all", "kept"):
            raise UserError(f"objective.kl_tokens is {self.kl_tokens!r}; expected all or kept")
        if self.reduction not in REDUCTIONS:
            raise UserError(
                f"objective.reduction is {self.reduction!r}; expected one of {', '.join(REDUCTIONS)}"
                + (" (bnpo depends on how rows are sharded and is not offered)" if self.reduction == "bnpo" else "")
            )

    @property
    def reaches_every_row(self) -> bool:
        """Whether a row whose advantages are all 0 can have a gradient: on its KL tokens, all or kept, it has."""
        return self.beta > 0

    def ratio(self, logps: Tensor, old_logps: Tensor, mask: Tensor) -> Tensor:
        """(B, T) importance ratios, 1 outside the mask (with no gradient there)."""
        return torch.exp(masked_log_ratio(logps, old_logps, mask))

    def policy_loss(self, ratio: Tensor, advantages: Tensor) -> Tensor:
        """(B, T) clipped surrogate losses; `advantages` is (B, 1) or (B, T)."""
        upper = self.epsilon if self.epsilon_high is None else self.epsilon_high
        return clipped_surrogate(ratio, advantages, self.epsilon, upper, self.dual_clip)

    def kl(self, logps: Tensor, ref_logps: Tensor, ratio: Tensor, mask: Tensor) -> Tensor:
        """(B, T) k3 estimate of the KL to the reference, weighted by the ratio.

        The weight makes estimate and gradient those of the current policy when the tokens come from an older one
        (arXiv 2512.02556, section 3.1; TRL's `use_bias_correction_kl`).
        """
        return k3_divergence(masked_log_ratio(logps, ref_logps, mask)) * ratio

    def clipped_low(self, ratio: Tensor, advantages: Tensor) -> Tensor:
        """(B, T) bool: the lower bound cut this token's gradient."""
        return (ratio < 1 - self.epsilon) & (advantages < 0)

    def clipped_high(self, ratio: Tensor, advantages: Tensor) -> Tensor:
        """(B, T) bool: the upper bound cut this token's gradient."""
        upper = self.epsilon if self.epsilon_high is None else self.epsilon_high
        return (ratio > 1 + upper) & (advantages > 0)
