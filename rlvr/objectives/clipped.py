"""The clipped surrogate of GRPO, DAPO, Dr. GRPO and RLOO, with an optional KL term: what is minimised."""

from dataclasses import dataclass

from torch import Tensor

from rlvr.errors import UserError
from rlvr.maths.ratios import clipped_surrogate
from rlvr.objectives.base import Objective
from rlvr.registry import variant


@variant("objective", "clipped")
@dataclass
class Clipped(Objective):
    """Chosen with `objective=clipped`.

    Attributes:
        epsilon: lower clip range.
        epsilon_high: upper clip range; None for the same as `epsilon`.
        dual_clip: bound c > 1 on the loss of a negative advantage, -c A; None for off.
    """

    measured = ("clip_ratio/low_mean", "clip_ratio/high_mean", "clip_ratio/region_mean")

    epsilon: float = 0.2
    epsilon_high: float | None = None
    dual_clip: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (0 < self.epsilon < 1 and self.upper > 0):
            raise UserError(
                f"objective.epsilon is {self.epsilon} and objective.epsilon_high {self.epsilon_high}; expected "
                "0 < epsilon < 1 and epsilon_high > 0, e.g. 0.2 and 0.28"
            )
        if self.dual_clip is not None and not self.dual_clip > 1:
            raise UserError(f"objective.dual_clip is {self.dual_clip}; expected a number above 1, or null for off")

    @property
    def upper(self) -> float:
        """The upper clip range."""
        return self.epsilon if self.epsilon_high is None else self.epsilon_high

    def token_losses(self, ratio: Tensor, advantages: Tensor, entropies: Tensor | None = None) -> Tensor:
        """(N, T) clipped surrogate losses."""
        return clipped_surrogate(ratio, advantages, self.epsilon, self.upper, self.dual_clip)

    def measures(self, ratio: Tensor, advantages: Tensor, entropies: Tensor | None = None) -> dict[str, Tensor]:
        """(N, T) bool: whose gradient the lower bound cut, the upper one, either."""
        low = (ratio < 1 - self.epsilon) & (advantages < 0)
        high = (ratio > 1 + self.upper) & (advantages > 0)
        return dict(zip(self.measured, (low, high, low | high), strict=True))
