"""Random reward: the control arm. A method that gains from it gains from something else than the verdicts."""

import hashlib
from dataclasses import dataclass

from rlvr.errors import UserError
from rlvr.registry import variant
from rlvr.rewards.base import Reward, Scored


@variant("reward", "random")
@dataclass
class Random(Reward):
    """Chosen with `reward=random`. A coin for each completion, thrown by the hash of its text.

    Equal completions to equal golds get the same; nothing depends on ranks, on order or on a global generator.

    Attributes:
        share: of completions that are paid 1; the others 0.
        seed: of the coin.
    """

    share: float = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise UserError(f"reward.random.share is {self.share}; expected a share from 0 to 1")

    def __call__(self, batch: Scored) -> list[float | None]:
        return [
            float(self._coin(gold, completion) < self.share)
            for gold, completion in zip(batch.golds, batch.completions, strict=True)
        ]

    def _coin(self, gold: object, completion: str) -> float:
        text = repr((self.seed, gold, completion)).encode("utf-8", "backslashreplace")
        return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") / 2**64
