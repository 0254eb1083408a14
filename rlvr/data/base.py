"""The interface of a task: problems to train on, and problems kept back."""

import hashlib
import json
from dataclasses import dataclass

Prompt = str | list[dict[str, str]]
Gold = str | tuple[str, ...]


@dataclass(frozen=True)
class Problem:
    """One verifiable question.

    Attributes:
        prompt: plain text, or a chat as a list of `{"role": ..., "content": ...}` messages.
        gold: the right answer as text, with or without `$...$` or `\\boxed{}`; several accepted forms as a tuple.
    """

    prompt: Prompt
    gold: Gold

    @property
    def prompt_id(self) -> str:
        """First 16 hex digits of sha256 of the prompt text; of the JSON text with sorted keys, for a chat."""
        is_text = isinstance(self.prompt, str)
        text = self.prompt if is_text else json.dumps(self.prompt, sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(str(text).encode("utf-8")).hexdigest()[:16]


@dataclass
class Data:
    """A source of problems. Both methods give the same list, in the same order, each time they are called."""

    def train(self) -> list[Problem]:
        """The problems that prompts are drawn from.

        Returns:
            At least one problem, in an order the source fixes; shuffling is the prompt stream's work.

        Raises:
            UserError: if the source cannot be read or has too few problems.
        """
        raise TypeError(f"{type(self).__name__} has no problems to train on; define train()")

    def heldout(self) -> list[Problem]:
        """The problems that accuracy is measured on; none of them is in `train()`.

        Returns:
            A possibly empty list: a source without held-out problems says so with `[]`.

        Raises:
            UserError: if the source cannot be read.
        """
        raise TypeError(f"{type(self).__name__} does not say what it holds back; define heldout()")

    def notes(self) -> list[str]:
        """What people should know about how the problems were read: counts, columns, what was left out; a line each."""
        return []

    def prompt_limit(self) -> int | None:
        """The most tokens a prompt may have, for `rlvr.data.lengths.filter_long`; None for no limit."""
        return None
