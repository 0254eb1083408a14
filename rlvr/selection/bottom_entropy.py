"""The control that should fail: the share with the lowest entropy, what the forks leave (arXiv 2506.01939, sec. 5)."""

from dataclasses import dataclass
from typing import ClassVar

from rlvr.registry import variant
from rlvr.selection.base import Selection


@variant("selection", "bottom_entropy")
@dataclass
class BottomEntropy(Selection):
    """Chosen with `selection=bottom_entropy`."""

    rule: ClassVar[str] = "bottom_entropy"
    keep: float = 0.8
