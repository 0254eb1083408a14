"""The interface of a reward."""

from collections.abc import Sequence
from dataclasses import dataclass

from rlvr.errors import UserError


@dataclass(frozen=True)
class Scored:
    """The completions to score; every list has B entries in the same order.

    Attributes:
        completions: what was sampled, as text without special tokens.
        golds: the right answers; several accepted forms of one answer as a sequence.
        lengths: tokens of each completion, the end-of-text token included.
        truncated: whether a completion was cut at the limit, without an end-of-text token.
        max_completion_length: the limit, tokens.
        group_size: G, completions of one prompt, which stand side by side; None where nobody said.
    """

    completions: list[str]
    golds: Sequence[str | Sequence[str]]
    lengths: list[int]
    truncated: list[bool]
    max_completion_length: int
    group_size: int | None = None

    def __post_init__(self) -> None:
        sizes = {name: len(getattr(self, name)) for name in ("completions", "golds", "lengths", "truncated")}
        if len(set(sizes.values())) > 1:
            raise ValueError(f"a batch to score has lists of different lengths: {sizes}")
        if self.group_size is not None and len(self.completions) % self.group_size:
            raise ValueError(f"{len(self.completions)} completions are no whole groups of {self.group_size}")

    def groups(self) -> list[slice]:
        """The rows of each group.

        Raises:
            UserError: if nobody said how large groups are.
        """
        if self.group_size is None:
            raise UserError(
                "a reward compares the completions of one prompt, but does not know how many there are; expected "
                "RLVRTrainer, which says so, or RewardFunction.bind(..., group_size=G)"
            )
        return [slice(first, first + self.group_size) for first in range(0, len(self.completions), self.group_size)]


@dataclass
class Reward:
    """A number for each completion; the total reward is the sum over rewards, each times its weight.

    Attributes:
        weight: this reward's factor in the sum.
    """

    weight: float = 1.0

    @property
    def two_sided(self) -> bool:
        """Whether values above 0 say "right" and the others "wrong": as the first reward it then splits a group.

        False where all values lie on one side of 0, or where 0 is no border.
        """
        return True

    def __call__(self, batch: Scored) -> list[float | None]:
        """B rewards before the weight; None where this reward has nothing to say about a completion."""
        raise TypeError(f"{type(self).__name__} does not say what it pays; define __call__(batch)")
