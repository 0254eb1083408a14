"""A reward as the trainer calls it: with TRL's keywords in, a float or None per completion out."""

from collections.abc import Callable, Sequence
from typing import Any

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
        **_: Any,
    ) -> list[float | None]:
        """The rewards of this rank's completions, before their weight; logs what the verdicts say."""
        batch = Scored(
            completions=[completion_text(completion) for completion in completions],
            golds=gold if gold is not None else [""] * len(completions),
            lengths=[len(ids) for ids in completion_ids],
            truncated=[not ids or ids[-1] not in self._ends for ids in completion_ids],
            max_completion_length=self._longest,
            group_size=self._group_size,
        )
        values = self.reward(batch)
        verdicts = getattr(self.reward, "verdicts", None)
        if verdicts and log_metric is not None:
            for key, value in verifier_metrics(verdicts).items():
                log_metric(key, value)
        return values
