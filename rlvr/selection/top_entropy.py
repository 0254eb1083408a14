"""The forking tokens: the share with the highest entropy (arXiv 2506.01939, eq. 6)."""

from dataclasses import dataclass
from typing import ClassVar

from rlvr.registry import variant
from rlvr.selection.base import Selection


@variant("selection", "top_entropy")
@dataclass
class TopEntropy(Selection):
    """Chosen with `selection=top_entropy`."""

    rule: ClassVar[str] = "top_entropy"
    keep: float = 0.2
