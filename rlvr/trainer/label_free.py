"""Which rewards an algorithm can learn from, and which of TRL's metrics say nothing where rewards do not shape it."""

from collections.abc import Sequence
from typing import Any

from rlvr.errors import UserError
from rlvr.trainer.algorithm import Algorithm


def _says_nothing(function: Any) -> bool:
    return bool(getattr(getattr(function, "reward", None), "says_nothing", False))


def check_rewards(reward_funcs: Any, algorithm: Algorithm) -> None:
    """Refuse `reward=none` for an algorithm that learns from rewards, and a verdict that an advantage cannot split by.

    Args:
        reward_funcs: one, or several in order.
        algorithm: the three answers.

    Raises:
        UserError: naming what reads the reward.
    """
    functions = reward_funcs if isinstance(reward_funcs, Sequence) else [reward_funcs]
    for first in functions[:1]:
        _check_split(first, algorithm)
    if not algorithm.uses_rewards or not any(_says_nothing(function) for function in functions):
        return
    reader = f"advantage={getattr(algorithm.advantage, 'name', type(algorithm.advantage).__name__)}"
    if not algorithm.advantage.uses_rewards:
        reader = f"selection.candidates={algorithm.selection.candidates}"
    raise UserError(
        f"reward=none with {reader}, which needs rewards that differ; choose a reward, e.g. reward=accuracy, or an "
        "algorithm without rewards, e.g. algorithm=em_ft"
    )


def _check_split(first: Any, algorithm: Algorithm) -> None:
    """The verdict is the first reward's value, whatever its weight."""
    reward = getattr(first, "reward", None)
    if not algorithm.advantage.splits_groups or getattr(reward, "two_sided", True) or _says_nothing(first):
        return
    name = getattr(first, "__name__", type(reward).__name__)
    advantage = getattr(algorithm.advantage, "name", type(algorithm.advantage).__name__)
    raise UserError(
        f"advantage={advantage} with reward.{name} first, whose values do not say right (above 0) or wrong (0 or "
        "less): no token could tell one from the other; choose reward=accuracy, or another that does, e.g. "
        "reward.self_consistency.majority=true"
    )


def meaningless_metrics(functions: Sequence[Any], names: Sequence[str], algorithm: Algorithm) -> list[str]:
    """Metrics of TRL that would mislead: of a reward that says nothing, and of groups whose rewards nobody compares.

    Args:
        functions: the reward functions.
        names: theirs, in the same order.
        algorithm: the three answers.
    """
    silent = [name for function, name in zip(functions, names, strict=True) if _says_nothing(function)]
    metrics = [f"rewards/{name}/{number}" for name in silent for number in ("mean", "std")]
    if len(silent) == len(names):
        metrics += ["reward", "reward_std"]
    return metrics if algorithm.uses_rewards else [*metrics, "frac_reward_zero_std"]
