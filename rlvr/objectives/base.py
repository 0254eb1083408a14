"""What every objective has: a loss per token, an optional KL term, and what the sums are divided by."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from rlvr.errors import UserError
from rlvr.maths.denominators import REDUCTIONS
from rlvr.maths.ratios import k3_divergence, masked_log_ratio


@dataclass
class Objective:
    """Numbers shared by the objectives; a subclass says what a token loses.

    Attributes:
        beta: weight of the KL term against the reference policy; 0 for none.
        kl_tokens: tokens the KL term acts on: `all` (as TRL) or `kept`.
        reduction: what a step's sum is divided by: `token_mean`, `token_mean_rollout`, `sequence_mean`, `sequence_sum`,
            `constant`.
        mask_truncated: completions cut at the length limit carry no loss and do not vote; they keep their reward in
            the group's baseline (DAPO's overlong filtering).
    """

    uses_advantages: ClassVar[bool] = True
    """Whether credit enters the loss; a token of advantage 0 then has no gradient and is not projected."""

    measured: ClassVar[tuple[str, ...]] = ()
    """Names of what `measures` gives, in its order."""

    beta: float = 0.0
    kl_tokens: str = "all"
    reduction: str = "token_mean"
    mask_truncated: bool = False

    def __post_init__(self) -> None:
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
        """Whether a row whose advantages are all 0 can have a gradient: by its KL term, or where credit is not used."""
        return self.beta > 0 or not self.uses_advantages

    @property
    def per_row(self) -> bool:
        """Whether a row's sum is divided by its own tokens before the rows are added up."""
        return self.reduction == "sequence_mean"

    @property
    def entropy_temperature(self) -> float | None:
        """The temperature of the entropies that the loss differentiates; None where it needs none."""
        return None

    def ratio(self, logps: Tensor, old_logps: Tensor, mask: Tensor) -> Tensor:
        """(N, T) importance ratios, 1 outside the mask (with no gradient there)."""
        return torch.exp(masked_log_ratio(logps, old_logps, mask))

    def kl(self, logps: Tensor, ref_logps: Tensor, ratio: Tensor, mask: Tensor) -> Tensor:
        """(N, T) k3 estimate of the KL to the reference, weighted by the ratio.

        The weight makes estimate and gradient those of the current policy when the tokens come from an older one
        (arXiv 2512.02556, section 3.1; TRL's `use_bias_correction_kl`).
        """
        return k3_divergence(masked_log_ratio(logps, ref_logps, mask)) * ratio

    def token_losses(self, ratio: Tensor, advantages: Tensor, entropies: Tensor | None) -> Tensor:
        """What each token loses, before the sampler's weights and the denominator.

        Args:
            ratio: (N, T) importance ratios of the current over the sampling policy.
            advantages: (N, 1) or (N, T).
            entropies: (N, T) nats at `entropy_temperature`, with gradient; None where that is None.

        Returns:
            (N, T) losses to minimise.
        """
        raise TypeError(f"{type(self).__name__} does not say what a token loses; define token_losses(...)")

    def measures(self, ratio: Tensor, advantages: Tensor, entropies: Tensor | None) -> dict[str, Tensor]:
        """(N, T) numbers to log by name, as means over the kept tokens of an optimizer step; arguments as above."""
        return {}
