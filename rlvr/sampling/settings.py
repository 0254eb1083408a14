"""How answers are drawn."""

from dataclasses import dataclass

from rlvr.errors import UserError


@dataclass(frozen=True)
class Sampling:
    """How answers are drawn.

    Attributes:
        temperature: 0 for greedy.
        top_p: nucleus; 1 for off.
        top_k: 0 for off.
        max_tokens: of an answer, the end-of-text token included.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    max_tokens: int = 2048

    def __post_init__(self) -> None:
        if not self.temperature >= 0:
            raise UserError(f"temperature is {self.temperature}; expected 0 (greedy) or more")
        if not 0 < self.top_p <= 1:
            raise UserError(f"top_p is {self.top_p}; expected a number above 0 and at most 1")
        if self.top_k < 0:
            raise UserError(f"top_k is {self.top_k}; expected 0 (off) or more")
        if self.max_tokens < 1:
            raise UserError(f"max_tokens is {self.max_tokens}; expected at least 1")
