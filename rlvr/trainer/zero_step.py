"""DeepSpeed's optimizer step, made or left out as all ranks have agreed, whatever the stage and the type of weights."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from accelerate.utils import DeepSpeedEngineWrapper
from torch import Tensor


class Judge(Protocol):
    """Who decides about a step."""

    def look_at(self, gradients: Any) -> bool:
        """Whether the step must not be made."""

    def refused(self) -> None:
        """The engine has left the step out by itself."""


def reduced_gradients(engine: Any) -> Iterator[tuple[str, Tensor | None]]:
    """This rank's share of the gradient as the optimizer will use it, by the name of the parameter where that is known.

    ZeRO keeps it in partitions: one list for each group of parameters, or, where the optimizer's state is offloaded,
    already flat beside the weights it updates.
    """
    optimizer = engine.optimizer
    if not hasattr(optimizer, "averaged_gradients"):  # stage 0 with an optimizer of torch
        yield from ((name, values.grad) for name, values in engine.module.named_parameters())
        return
    names = {id(values): name for name, values in engine.module.named_parameters()}
    offloaded = getattr(optimizer, "offload_optimizer", getattr(optimizer, "cpu_offload", False))
    if offloaded:
        flat = getattr(optimizer, "fp32_partitioned_groups_flat", None) or optimizer.single_partition_of_fp32_groups
        yield from ((f"parameter group {index}", values.grad) for index, values in enumerate(flat))
        return
    groups = getattr(optimizer, "params_in_partition", None) or optimizer.fp16_groups
    for index, gradients in optimizer.averaged_gradients.items():
        for position, gradient in enumerate(gradients or []):
            known = position < len(groups[index])  # the last rank's partition may end in padding
            yield names.get(id(groups[index][position]), f"group {index}") if known else "padding", gradient


@contextmanager
def decided(optimizer: Any, bad: bool) -> Iterator[None]:
    """Inside, a ZeRO optimizer's look at its gradients gives what was decided; its own way out clears its buffers."""

    def check(*_: Any, **__: Any) -> None:
        optimizer.overflow = bad

    changed: dict[str, Any] = {"check_overflow": check}
    # Stages 1 and 2 look where the first of these says so, which depends on the type; stage 3 looks in the second, and
    # for float16 only.
    for name, value in (("check_grad_overflow", True), ("_overflow_check_and_loss_scale_update", check)):
        if hasattr(optimizer, name):
            changed[name] = value
    before = {name: vars(optimizer)[name] for name in changed if name in vars(optimizer)}
    vars(optimizer).update(changed)
    try:
        yield
    finally:
        for name in changed:
            del vars(optimizer)[name]
        vars(optimizer).update(before)


def drop_gradients(model: torch.nn.Module) -> None:
    """Take the gradients away before a step that is not to be made: an optimizer of torch changes nothing then."""
    for parameter in model.parameters():
        parameter.grad = None


class AgreedStep(DeepSpeedEngineWrapper):
    """Accelerate's wrapper of an engine, with a decision of all ranks between the backward pass and the step.

    Args:
        engine: of DeepSpeed.
        judge: decides.
    """

    def __init__(self, engine: Any, judge: Judge) -> None:
        super().__init__(engine)
        self.judge = judge

    def backward(self, loss: Tensor, sync_gradients: bool = True, **kwargs: Any) -> None:
        """A backward pass, and after the last one of a step the step, if it is to be made."""
        engine = self.engine
        engine.set_gradient_accumulation_boundary(is_boundary=sync_gradients)
        engine.backward(loss, **kwargs)
        if not sync_gradients:
            return
        bad = self.judge.look_at(reduced_gradients(engine))
        if not hasattr(engine.optimizer, "overflow"):
            if bad:
                drop_gradients(engine.module)
            engine.step()
            return
        with decided(engine.optimizer, bad):
            engine.step()
        if engine.optimizer.overflow and not bad:
            self.judge.refused()
