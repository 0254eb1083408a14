"""The control arm: a random share, by a counter-based hash of (seed, step, row, token)."""

from dataclasses import dataclass
from typing import ClassVar

from rlvr.registry import variant
from rlvr.selection.base import Selection


@variant("selection", "random")
@dataclass
class RandomTokens(Selection):
    """Chosen with `selection=random`."""

    rule: ClassVar[str] = "random"
    keep: float = 0.2
