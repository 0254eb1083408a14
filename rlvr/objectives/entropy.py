"""Entropy minimisation: every token loses the entropy of the policy where it was sampled; nothing is rewarded."""

from dataclasses import dataclass

import torch
from torch import Tensor

from rlvr.errors import UserError
from rlvr.objectives.base import Objective
from rlvr.registry import variant


@variant("objective", "entropy")
@dataclass
class Entropy(Objective):
    """Chosen with `objective=entropy`. Needs `advantage=constant`: no credit enters.

    The loss of token t is H(softmax(z_t / temperature)) with z_t the current policy's logits that predict token t; the
    end-of-text token is one of them. The samples are given: no gradient goes through their choice (EM-FT, arXiv
    2505.15134, eq. 2; one-shot EM, arXiv 2505.20282, whose released code takes z_(t+1) instead).

    Attributes:
        temperature: of the entropies; the sampling temperature is another matter. One-shot EM takes 0.5.
    """

    uses_advantages = False
    measured = ("objective/entropy",)

    temperature: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.temperature < float("inf"):
            raise UserError(f"objective.temperature is {self.temperature}; expected a number above 0, e.g. 1 or 0.5")

    @property
    def entropy_temperature(self) -> float:
        """`temperature`."""
        return self.temperature

    def token_losses(self, ratio: Tensor, advantages: Tensor, entropies: Tensor | None) -> Tensor:
        """The entropies themselves."""
        return _given(entropies)

    def measures(self, ratio: Tensor, advantages: Tensor, entropies: Tensor | None) -> dict[str, Tensor]:
        """The entropies at the loss's temperature: what is brought down."""
        return {"objective/entropy": _given(entropies).detach()}


def _given(entropies: Tensor | None) -> Tensor:
    if not isinstance(entropies, torch.Tensor):
        raise ValueError("entropies is None; expected those of the current policy, which objective=entropy minimises")
    return entropies
