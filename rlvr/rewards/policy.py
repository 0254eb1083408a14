"""What counts as an answer, and how strictly it is compared."""

from dataclasses import dataclass

from rlvr.errors import UserError

EXTRACTS = ("boxed", "answer_line", "last_number")
THINKS = ("after", "required", "ignore")


@dataclass(frozen=True)
class Policy:
    r"""The rules of grading; the same object serves training and evaluation.

    Attributes:
        extract: where the answer stands: `boxed`, the last `\\boxed{...}` and nothing outside it; `answer_line`, after
            the last `answer is` or `Answer:`; `last_number`, the last number of the text.
        think: `after` reads what follows the last `</think>`, and an unclosed `<think>` is no answer; `required` is
            the same, and the tag has to be there; `ignore` reads everything.
        truncated_wrong: a completion that was cut at the length limit is wrong, whatever it boxed on the way.
        relative_tolerance: a decimal within this share of an exact value stands for it; None for never.
        longest: characters of an answer; a longer one is wrong.
    """

    extract: str = "boxed"
    think: str = "after"
    truncated_wrong: bool = True
    relative_tolerance: float | None = None
    longest: int = 512

    def __post_init__(self) -> None:
        for name, allowed in (("extract", EXTRACTS), ("think", THINKS)):
            value = getattr(self, name)
            if value not in allowed:
                raise UserError(f"{name} is {value!r}; expected one of {', '.join(allowed)}")
        tolerance = self.relative_tolerance
        if tolerance is not None and not 0 < tolerance < 1:
            raise UserError(
                f"relative_tolerance is {tolerance}; expected more than 0 and less than 1, or null for none"
            )
        if self.longest < 1:
            raise UserError(f"longest is {self.longest}; expected at least 1 character, e.g. 512")


DEFAULT = Policy()
"""The rules where nothing else is said."""
