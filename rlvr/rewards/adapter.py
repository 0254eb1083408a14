"""A reward as the trainer calls it: with TRL's keywords in, a float or None per completion out."""

import functools
import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any

from rlvr.errors import UserError
from rlvr.rewards.base import Reward, Scored
from rlvr.rewards.watch import verifier_metrics


def completion_text(completion: Any) -> str:
    """The text of a completion: itself, or the content of the last chat message."""
    return completion if isinstance(completion, str) else str(completion[-1]["content"])


def graders(functions: Sequence[Any]) -> list[Any]:
    """The first of the reward functions that has graded its last batch: a list of one, or of none.

    Its reward's `verdicts` are one a completion of that batch.
    """
    return [function for function in functions if getattr(getattr(function, "reward", None), "verdicts", None)][:1]


def check_finite(name: str, values: Sequence[Any], prompt_ids: Sequence[Any] | None) -> None:
    """Refuse a NaN or an infinity among rewards: None says that there is none, and these would go unnoticed.

    Args:
        name: of the reward.
        values: one per completion.
        prompt_ids: of the prompt of each completion, where the rows have them.

    Raises:
        UserError: naming the reward, the row and the value.
    """
    for index, value in enumerate(values):
        if value is not None and not math.isfinite(value):
            where = f"row {index} of this process" if prompt_ids is None else f"prompt_id {prompt_ids[index]}"
            raise UserError(
                f"the reward {name} gave {float(value)} to a completion of {where}; expected a finite number, or None "
                "where there is nothing to say: mend the reward"
            )


def checked(name: str, function: Any) -> Any:
    """A reward function of the library's user with `check_finite` behind it.

    A `RewardFunction`, or what takes its place with a `bind` of its own, and a model stay as they are.
    """
    if hasattr(function, "bind") or hasattr(function, "named_parameters"):
        return function
    if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None)):  # noqa: B004

        async def later(*args: Any, **columns: Any) -> Any:
            values = await function(*args, **columns)
            check_finite(name, values, columns.get("prompt_id"))
            return values

        return functools.update_wrapper(later, function)

    def now(*args: Any, **columns: Any) -> Any:
        values = function(*args, **columns)
        check_finite(name, values, columns.get("prompt_id"))
        return values

    return functools.update_wrapper(now, function)


class RewardFunction:
    """Wraps a `Reward` for TRL, which passes dataset columns and token ids as keywords.

    Args:
        name: of the reward; metrics appear as `rewards/<name>/mean`.
        reward: what is paid.
    """

    def __init__(self, name: str, reward: Reward) -> None:
        self.__name__ = name
        self.reward = reward
        self._ends: frozenset[int] = frozenset()
        self._longest = 0
        self._group_size: int | None = None

    def bind(self, end_token_ids: list[int], max_completion_length: int, group_size: int | None = None) -> None:
        """Learn from the trainer which tokens end a completion, the length at which one is cut, and the group size."""
        self._ends, self._longest = frozenset(end_token_ids), max_completion_length
        self._group_size = group_size

    def __call__(
        self,
        completions: list[Any],
        completion_ids: list[list[int]],
        gold: Sequence[str | Sequence[str]] | None = None,
        log_metric: Callable[[str, float], None] | None = None,
        prompt_id: Sequence[Any] | None = None,
        **_: Any,
    ) -> list[float | None]:
        """The rewards of this rank's completions, before their weight; logs what the verdicts say.

        Raises:
            UserError: for a reward that is not a finite number.
        """
        batch = Scored(
            completions=[completion_text(completion) for completion in completions],
            golds=gold if gold is not None else [""] * len(completions),
            lengths=[len(ids) for ids in completion_ids],
            truncated=[not ids or ids[-1] not in self._ends for ids in completion_ids],
            max_completion_length=self._longest,
            group_size=self._group_size,
        )
        values = self.reward(batch)
        check_finite(self.__name__, values, prompt_id)
        verdicts = getattr(self.reward, "verdicts", None)
        if verdicts and log_metric is not None:
            for key, value in verifier_metrics(verdicts).items():
                log_metric(key, value)
        return values
