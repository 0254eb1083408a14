"""Pay for the form of an answer: a box that closes, and thinking between its tags where that is asked for."""

import re
from dataclasses import dataclass

from rlvr.errors import UserError
from rlvr.registry import variant
from rlvr.rewards.base import Reward, Scored
from rlvr.rewards.extract import last_boxed

_THOUGHT = re.compile(r"\s*(?:<think>)?(?P<thought>.*?)</think>(?P<rest>.*)", re.DOTALL)


def has_form(completion: str, think: bool) -> bool:
    """Whether a completion has an answer in a closed box; with `think`, after one thought in `<think>` tags.

    The opening tag may be missing, because some chat templates end the prompt with it.
    """
    answer = completion
    if think:
        found = _THOUGHT.fullmatch(completion)
        if found is None or not found["thought"].strip() or "<think>" in found["thought"] or "think>" in found["rest"]:
            return False
        answer = found["rest"]
    return bool(last_boxed(answer))


@variant("reward", "format")
@dataclass
class Format(Reward):
    """Added to another reward with `+reward.format={weight: 0.1}`, or alone, as a control, with `reward=format`.

    It says nothing about whether the answer is right.

    Attributes:
        present: paid where the form is as asked.
        absent: paid elsewhere.
        think: the answer has to come after one thought between `<think>` and `</think>`.
    """

    present: float = 1.0
    absent: float = 0.0
    think: bool = False

    def __post_init__(self) -> None:
        if not self.present > self.absent:
            raise UserError(
                f"reward.format.present is {self.present} and reward.format.absent {self.absent}; expected "
                "present > absent, e.g. 1 and 0"
            )

    @property
    def two_sided(self) -> bool:
        return self.present > 0 >= self.absent

    def __call__(self, batch: Scored) -> list[float | None]:
        forms = [has_form(completion, self.think) for completion in batch.completions]
        return [self.present if form else self.absent for form in forms]
