"""Soft overlong punishment: a completion pays for coming near the length limit (DAPO, arXiv 2503.14476, eq. 13)."""

from dataclasses import dataclass

from rlvr.errors import UserError
from rlvr.registry import variant
from rlvr.rewards.base import Reward, Scored


def overlong_penalty(length: int, limit: int, cache: int) -> float:
    """0 up to limit - cache tokens, then falling linearly to -1 at the limit, and -1 beyond (DAPO, eq. 13).

    Bounded below as in the paper and TRL; verl's falls on beyond the limit. At cache 0 there is no slope to divide by.
    """
    free = limit - cache
    if length <= free:
        return 0.0
    return (free - length) / cache if length <= limit else -1.0


@variant("reward", "soft_overlong")
@dataclass
class SoftOverlong(Reward):
    """Part of `reward=dapo`, or added to another reward with `+reward.soft_overlong={}`.

    Attributes:
        cache: tokens before the limit over which the punishment grows; None for a fifth of the limit, rounded down
            (the paper's 4096 of 20480).
    """

    cache: int | None = None

    def __post_init__(self) -> None:
        if self.cache is not None and self.cache < 0:
            raise UserError(
                f"reward.soft_overlong.cache is {self.cache}; expected 0 tokens or more, or null for the default"
            )

    @property
    def two_sided(self) -> bool:
        return False  # never above 0

    def __call__(self, batch: Scored) -> list[float | None]:
        limit = batch.max_completion_length
        cache = limit // 5 if self.cache is None else self.cache
        if cache > limit:
            raise UserError(
                f"reward.soft_overlong.cache is {cache} tokens but max_completion_length only {limit}; expected "
                "cache <= the limit: lower reward.soft_overlong.cache, or set it to null for a fifth of the limit"
            )
        return [overlong_penalty(length, limit, cache) for length in batch.lengths]
