"""Steps with numbers that are not finite: found by all ranks together, left out, counted, and not suffered for long.

A loss is looked at before its backward pass, the gradient before the optimizer's step. Where any rank finds a NaN or an
infinity, no rank makes the step: weights and moments stay as they are, the learning rate goes on as planned. Left to
the engines, one process would train on NaN, DDP would spread it, and DeepSpeed would decide by stage and type.
"""

import dataclasses
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import TrainerCallback
from transformers.trainer_callback import ExportableState

from rlvr.launch.agreement import everywhere
from rlvr.launch.status import Disagreement
from rlvr.maths.finite import Named, all_finite, first_not_finite
from rlvr.trainer.agree import any_rank
from rlvr.trainer.batch import Slice
from rlvr.trainer.forward import Tokens
from rlvr.trainer.inside import entropies_of, looks_first, narrowed
from rlvr.trainer.loss import Sums
from rlvr.trainer.together import is_lead
from rlvr.trainer.zero_step import AgreedStep, drop_gradients

LOG = logging.getLogger("rlvr")

MOST_IN_A_ROW = 3
WINDOW = 200
MOST_IN_WINDOW = 2
"""1 % of `WINDOW` steps."""


def too_many(skipped: Sequence[int], step: int) -> str | None:
    """Why a run ends at a step that was left out; None where it goes on.

    Args:
        skipped: steps that were left out, rising; `step` is the last of them.
        step: from 1.

    Returns:
        "4 in a row", or "3 of the last 200 steps": more than 1 % of them, where they are not one row that may yet end.
    """
    gone, in_a_row = set(skipped), 0
    while step - in_a_row in gone:
        in_a_row += 1
    if in_a_row > MOST_IN_A_ROW:
        return f"{in_a_row} in a row"
    recent = sum(step - WINDOW < other <= step for other in gone)
    return f"{recent} of the last {min(step, WINDOW)} steps" if recent > max(MOST_IN_WINDOW, in_a_row) else None


def tensors_of(part: Slice) -> dict[str, Tensor]:
    """The tensors of a slice by name, those of its tokens among them."""
    fields = {field.name: getattr(part, field.name) for field in dataclasses.fields(part)}
    tokens = {field.name: getattr(part.tokens, field.name) for field in dataclasses.fields(part.tokens)}
    return {name: values for name, values in {**tokens, **fields}.items() if isinstance(values, Tensor)}


def file_name(step: int, rank: int) -> str:
    """The file with a rank's slices of a step."""
    return f"step_{step:06d}_rank_{rank}.pt"


class Faults(TrainerCallback, ExportableState):
    """What a trainer does about numbers that are not finite.

    Attributes:
        trainer: whose.
        folder: where the slices of a step go that ends the run.
        warn: called with a line for every step that is left out, on the first rank.
        count: steps left out so far, those before a resume included.
        recent: the last of them.
    """

    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer
        self.folder = Path(trainer.args.output_dir) / "faults"
        self.warn: Callable[[str], None] = LOG.warning
        self.count = 0
        self.recent: list[int] = []
        self.bad = False
        self._found: str | None = None
        self._slices: list[Slice] = []
        self._looks: bool | None = None
        trainer.add_callback(self)

    def state(self) -> dict[str, Any]:
        """What `trainer_state.json` keeps."""
        return {"args": {}, "attributes": {"count": self.count, "recent": self.recent}}

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        stored = state.stateful_callbacks.get(type(self).__name__, self.state())["attributes"]
        self.count, self.recent = stored["count"], list(stored["recent"])
        accelerator = self.trainer.accelerator
        engine = getattr(accelerator, "deepspeed_engine_wrapped", None)
        if engine is not None and not isinstance(engine, AgreedStep):
            accelerator.deepspeed_engine_wrapped = AgreedStep(engine.engine, self)

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self.bad, self._found = False, None
        self._slices.clear()

    def on_pre_optimizer_step(self, *_: Any, **__: Any) -> None:
        if self.bad and not self.trainer.is_deepspeed_enabled:
            drop_gradients(self.trainer.model)

    def on_step_end(self, *_: Any, **__: Any) -> None:
        if self.bad and self.trainer.accelerator.optimizer_step_was_skipped:
            self.trainer.lr_scheduler.step()  # the schedule counts steps, made or not; Trainer waits here for DeepSpeed

    def loss(self, model: Any, part: Slice) -> tuple[Tensor, Sums]:
        """The loss of a slice and its sums; where any rank's is not finite, 0 and none on every rank.

        The 0 is that of a dummy row, passed through `model` for the engines' hooks. The graph of the real rows is given
        up: 0 times its NaN is NaN again.
        """
        trainer = self.trainer
        self._slices.append(part)
        chosen: Sums = {}
        given: dict[str, Any] | None = None
        if trainer.algorithm.selection.inside_loss:
            looks = self._looks_first() and not part.idle
            given = {"entropies": entropies_of(trainer, model, part)} if looks else self._numbers(model, part)
            # A selection would refuse a NaN on one rank, while the others wait for it.
            if self._differs(tuple(given.values()), given, part):
                return self._nothing(model, part), {}
            seed, step = trainer.args.seed, trainer.state.global_step
            part, chosen = narrowed(part, given["entropies"], trainer.algorithm, trainer.ranks, seed, step)
            given = None if looks else given
        given = given or self._numbers(model, part)
        loss, sums = trainer._loss_of(part, *given.values())
        if self._differs((loss,), given, part):
            return self._nothing(model, part), {}
        return loss, chosen | sums

    def _numbers(self, model: Any, part: Slice) -> dict[str, Any]:
        names = ("log_probs", "entropies", "loss_entropies")
        return dict(zip(names, self.trainer._loss_numbers(model, part), strict=True))

    def _looks_first(self) -> bool:
        if self._looks is None:
            self._looks = looks_first(self.trainer)
        return self._looks

    def _differs(self, decisive: tuple[Tensor | None, ...], given: dict[str, Any], part: Slice) -> bool:
        """Whether numbers of the loss are not finite on any rank; the first tensor with such is remembered."""
        finite = all_finite([values for values in decisive if values is not None])
        if not any_rank(~finite):
            return False
        self.bad = True
        if not finite and self._found is None:
            name = first_not_finite([*tensors_of(part).items(), *given.items(), ("the loss itself", decisive[0])])
            self._found = f"the loss of slice {len(self._slices) - 1} is not finite, first in {name}"
        return True

    def _nothing(self, model: Any, part: Slice) -> Tensor:
        tokens = Tokens.dummy(part.kept.device)
        nothing = torch.zeros_like(tokens.completion_ids, dtype=torch.bool)
        logps, _, entropies = self.trainer._loss_numbers(
            model, dataclasses.replace(part, tokens=tokens, projected=nothing, empty=True)
        )
        return (logps if entropies is None else entropies).sum() * 0.0

    def look_at(self, gradients: Named) -> bool:
        """Whether this step must not be made; called by all ranks, with the gradient that the optimizer would get."""
        if self.bad:
            return True
        held = [(name, values) for name, values in gradients if values is not None]
        finite = all_finite([values for _, values in held])
        self.bad = any_rank(~finite)
        if self.bad and not finite:
            self._found = f"the gradient is not finite, first that of {first_not_finite(held)}"
        return self.bad

    def refused(self) -> None:
        """The engine itself left the step out, on all ranks alike: a norm can overflow where no number does."""
        self.bad, self._found = True, "the norm of the gradient is not finite"

    def close_step(self) -> None:
        """After the last backward pass of a step: look at the gradient, and count the step if it is not made.

        Raises:
            Disagreement: if too many steps were left out; the slices of every rank are saved then.
        """
        if not self.trainer.is_deepspeed_enabled:  # there the engine's step is made by now, or left out
            self.look_at((name, values.grad) for name, values in self.trainer.model.named_parameters())
        if not self.bad:
            return
        step = self.trainer.state.global_step + 1
        self.count += 1
        self.recent = [other for other in self.recent if other > step - WINDOW] + [step]
        found = {rank: text for rank, text in enumerate(everywhere(self._found)) if text is not None}
        first = min(found)
        what = f"step {step}: on rank {', '.join(map(str, found))} {found[first]}"
        reason = too_many(self.recent, step)
        if reason is not None:
            self._end(step, what, reason)
        if is_lead():
            self.warn(f"{what}; no rank makes this step, weights and moments stay as they are")

    def _end(self, step: int, what: str, reason: str) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / file_name(step, self.trainer.ranks.index)
        slices = [{name: values.cpu() for name, values in tensors_of(part).items()} for part in self._slices]
        values = {"step": step, "rank": self.trainer.ranks.index, "found": self._found, "slices": slices}
        torch.save(values, path)
        everywhere(None)  # all files are written before anybody ends the job
        raise Disagreement(
            f"{what}; {reason} were left out, so the run ends; the slices of each rank are in {self.folder}: see "
            "whether an update should rest on them, and go on from the last checkpoint with a lower "
            "optimizer.learning_rate or optimizer.max_grad_norm"
        )
