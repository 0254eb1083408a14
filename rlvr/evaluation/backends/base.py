"""The interface of a back end."""

from collections.abc import Iterator, Sequence
from typing import Protocol

from rlvr.evaluation.requests import Request, Sample
from rlvr.sampling.settings import Sampling


class Backend(Protocol):
    """Draws samples from one model.

    Attributes:
        engine: what the numbers depend on besides the model, e.g. `transformers float32`; the protocol's hash has it.
    """

    engine: str

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[list[Sample]]:
        """Draw every sample that is asked for.

        Samples are handed out as they are done, in any order and in lists of any size; whoever asks keeps each list at
        once, so that nothing is lost when the rest fails.

        Args:
            requests: at least one.
            sampling: for all of them.

        Raises:
            UserError: where the model or the settings do not fit, or the back end stays out of reach.
        """
        ...

    def close(self) -> None:
        """Give up memory and connections."""
        ...
