"""The interface of a decoding rule."""

from dataclasses import dataclass

from torch import Tensor
from torch import bool as bool_


@dataclass
class Decoding:
    """A rule that changes next-token logits before they are divided by the temperature and cut to the nucleus.

    A rule looks at each row by itself: the answer to a problem does not depend on the batch that it is drawn in.
    """

    def __call__(self, logits: Tensor) -> Tensor:
        """Changed logits.

        Args:
            logits: (B, V) in float32, as the model gives them.

        Returns:
            (B, V), a new tensor.
        """
        raise TypeError(f"{type(self).__name__} changes no logits; define __call__()")

    def doubtful(self, logits: Tensor) -> Tensor:
        """(B,) bool: rows of (B, V) logits in which an error of rounding, about 1e-6, may decide what the rule does.

        None, unless the rule decides by a threshold of its own and says so.
        """
        return logits.new_zeros(len(logits), dtype=bool_)
