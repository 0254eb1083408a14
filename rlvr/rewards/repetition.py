"""Repetition penalty: the share of a completion's n-grams that were there before."""

from dataclasses import dataclass

from rlvr.errors import UserError
from rlvr.registry import variant
from rlvr.rewards.base import Reward, Scored


def repeated_share(text: str, ngram: int) -> float:
    """The share of the n-grams of words that occurred earlier in the text; 0 for a text shorter than one n-gram."""
    words = text.split()
    total = len(words) - ngram + 1
    if total < 1:
        return 0.0
    different = len({tuple(words[start : start + ngram]) for start in range(total)})
    return 1.0 - different / total


@variant("reward", "repetition")
@dataclass
class Repetition(Reward):
    """Added to another reward with `+reward.repetition={weight: 0.5}`: 0 without repetition, towards -1.

    Attributes:
        ngram: words that count as a unit.
        free: share of repeated n-grams that costs nothing: a text that quotes itself a little is not punished.
    """

    ngram: int = 20
    free: float = 0.0

    def __post_init__(self) -> None:
        if self.ngram < 1:
            raise UserError(f"reward.repetition.ngram is {self.ngram}; expected 1 word or more, e.g. 20")
        if not 0 <= self.free < 1:
            raise UserError(f"reward.repetition.free is {self.free}; expected a share of at least 0 and below 1")

    @property
    def two_sided(self) -> bool:
        return False  # never above 0

    def __call__(self, batch: Scored) -> list[float | None]:
        shares = [repeated_share(completion, self.ngram) for completion in batch.completions]
        return [min(0.0, (self.free - share) / (1.0 - self.free)) for share in shares]
