"""One temperature at the forks, another everywhere else."""

from dataclasses import dataclass

from torch import Tensor, where

from rlvr.decoding.base import Decoding
from rlvr.errors import UserError
from rlvr.maths.entropy import token_entropy
from rlvr.registry import variant

CLOSE = 1e-4
"""Nats. A float32 forward pass in another batch moves entropies by about 1e-6."""


@variant("decoding", "fork_temperature")
@dataclass
class ForkTemperature(Decoding):
    """Chosen with `decoding=fork_temperature`: the experiment of arXiv 2506.01939 (section 3) on what forks are for.

    A token is a fork where the entropy of its distribution at temperature 1 is above the threshold. The protocol's own
    temperature then applies on top: leave it at 1.

    Attributes:
        T_fork: temperature at forks.
        T_other: temperature everywhere else.
        threshold: nats; the paper's 0.672 is the 80th percentile of its tokens.
    """

    T_fork: float = 1.0
    T_other: float = 1.0
    threshold: float = 0.672

    def __post_init__(self) -> None:
        for name in ("T_fork", "T_other"):
            if not getattr(self, name) > 0:
                raise UserError(f"decoding.{name} is {getattr(self, name)}; expected a number above 0, e.g. 1.0")
        if not self.threshold >= 0:
            raise UserError(f"decoding.threshold is {self.threshold}; expected nats, at least 0")

    def doubtful(self, logits: Tensor) -> Tensor:
        """(B,) which rows of (B, V) logits are forks or not by less than `CLOSE`: an error of rounding may decide."""
        return (token_entropy(logits) - self.threshold).abs() < CLOSE

    def __call__(self, logits: Tensor) -> Tensor:
        """(B, V) logits over (B, V) logits divided by the temperature of their row."""
        forks = token_entropy(logits) > self.threshold
        return logits / where(forks, self.T_fork, self.T_other)[:, None]
