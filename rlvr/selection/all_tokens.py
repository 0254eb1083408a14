"""Every token carries gradient: GRPO, DAPO, Dr. GRPO, RLOO as published."""

from dataclasses import dataclass
from typing import ClassVar

from rlvr.errors import UserError
from rlvr.registry import variant
from rlvr.selection.base import Selection


@variant("selection", "all")
@dataclass
class AllTokens(Selection):
    """Chosen with `selection=all`."""

    rule: ClassVar[str] = "all"
    normalizer: str = "all"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.keep != 1:
            raise UserError(
                f"selection=all keeps every token, but selection.keep is {self.keep}; choose algorithm=dapo (or grpo, "
                "dr_grpo, rloo), set selection.keep=1, or choose selection=top_entropy, bottom_entropy or random"
            )
