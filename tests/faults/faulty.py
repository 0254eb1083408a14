"""Trainings in which something is not finite, and the oracle for what such a step may change: nothing."""

from collections.abc import Callable, Collection
from copy import deepcopy
from typing import Any

import torch
from transformers import TrainerCallback

NAN = float("nan")


def poison_loss(trainer: Any, steps: Collection[int], slices: Collection[int] = (0,), rank: int = 0) -> None:
    """Log-probabilities that are NaN, in some slices of some steps (from 1), on one rank; a dummy's are left alone."""
    right = trainer._loss_numbers

    def wrong(model: Any, part: Any) -> Any:
        logps, *rest = right(model, part)
        now, index = trainer.state.global_step + 1, trainer._step % trainer.sizes.slices_per_step
        hit = now in steps and index in slices and trainer.ranks.index == rank and not part.empty
        return (logps * NAN if hit else logps, *rest)

    trainer._loss_numbers = wrong


def poison_gradient(trainer: Any, steps: Collection[int], name: str, rank: int = 0) -> None:
    """One parameter's gradient is NaN in some steps (from 1), on one rank, before ranks exchange it."""
    parameter = dict(trainer.model.named_parameters())[name]

    def wrong(gradient: torch.Tensor) -> torch.Tensor:
        hit = trainer.state.global_step + 1 in steps and trainer.ranks.index == rank
        return gradient * NAN if hit else gradient

    parameter.register_hook(wrong)


class Undone(TrainerCallback):
    """The oracle: the step is made, and then weights and the optimizer's state are put back."""

    def __init__(self, step: int) -> None:
        self.step = step
        self.before: Any = None

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step + 1 == self.step:
            self.before = deepcopy((kwargs["model"].state_dict(), kwargs["optimizer"].state_dict()))

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step + 1 == self.step:
            kwargs["model"].load_state_dict(self.before[0])
            kwargs["optimizer"].load_state_dict(self.before[1])


def said(trainer: Any) -> list[str]:
    """The warnings that the trainer gives from now on."""
    lines: list[str] = []
    trainer.faults.warn = lines.append
    return lines


Poison = Callable[[Any], None]
