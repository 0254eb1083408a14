"""What a grader says about one completion."""

from dataclasses import dataclass

STATUSES = ("correct", "wrong", "no_answer", "unparseable", "timeout", "crash")


@dataclass(frozen=True)
class Verdict:
    """One completion's verdict.

    Attributes:
        correct: whether the answer counts as right.
        extracted: the text of the last box; None where the completion has none.
        status: `correct`, `wrong`, `no_answer` (no box), `unparseable` (the box or the gold says nothing that can be
            compared), `timeout` or `crash` (the grader failed, not the completion).
        reason: one line on why it is not correct; empty where the status says it all.
        seconds: time the grading took.
    """

    correct: bool
    extracted: str | None
    status: str
    reason: str = ""
    seconds: float = 0.0

    def __post_init__(self) -> None:
        if self.status not in STATUSES:
            raise ValueError(f"status is {self.status!r}; expected one of {', '.join(STATUSES)}")
        if self.correct != (self.status == "correct"):
            raise ValueError(f"correct={self.correct} contradicts status {self.status!r}")
