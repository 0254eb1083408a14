"""The interface of credit assignment."""

from dataclasses import dataclass

from torch import Tensor

from rlvr.maths.rollouts import Rollouts


@dataclass
class Advantage:
    """How much credit each completion, or each token, gets."""

    def __call__(self, rollouts: Rollouts) -> Tensor:
        """(B,) or (B, T) advantages of this rank's completions, finite, 0 where nobody could score the row."""
        raise TypeError(f"{type(self).__name__} does not say how it assigns credit; define __call__(rollouts)")
