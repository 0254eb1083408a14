"""Going on with another number of processes, or another engine: weights and prompts do, the rest where it can.

One process and DDP hold the same optimizer, so its moments go on. DeepSpeed deals them out to its ranks in shares that
fit that number of ranks only: the weights are put together, and the moments start at zero.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerState

from rlvr.checkpoints.layout import step_of
from rlvr.checkpoints.manifest import read_manifest
from rlvr.errors import UserError
from rlvr.trainer import state
from rlvr.trainer.facts import moments_go_on


def adopt(trainer: Any, checkpoint: Path) -> None:
    """Take the weights of a checkpoint, before the engine is made; `go_on` takes the rest when the training begins.

    Raises:
        UserError: if its weights do not fit.
    """
    values = _weights(checkpoint)
    for name, parameter in trainer.model.named_parameters():
        if name not in values and parameter.requires_grad:
            raise UserError(f"{checkpoint} holds no weights of {name}; expected a checkpoint of this model")
        if name in values:
            _copy(values[name], parameter)
    trainer.adopted = checkpoint


def _weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    """All weights, from the float32 shares of DeepSpeed's ranks where there are such."""
    if (checkpoint / "latest").exists():
        from deepspeed.utils.zero_to_fp32 import get_fp32_state_dict_from_zero_checkpoint

        return dict(get_fp32_state_dict_from_zero_checkpoint(str(checkpoint)))
    from safetensors.torch import load_file

    values: dict[str, torch.Tensor] = {}
    for path in sorted(checkpoint.glob("model*.safetensors")):
        values |= load_file(path)
    if not values:
        raise UserError(
            f"{checkpoint} holds adapters, whose optimizer would be lost with another engine; go on as it was"
        )
    return values


def _copy(values: torch.Tensor, parameter: torch.nn.Parameter) -> None:
    """Into a parameter, or into the shares of all ranks under ZeRO-3."""
    if not hasattr(parameter, "ds_id"):
        with torch.no_grad():
            parameter.copy_(values)
        return
    import deepspeed

    with deepspeed.zero.GatheredParameters([parameter], modifier_rank=0), torch.no_grad():
        if torch.distributed.get_rank() == 0:
            parameter.copy_(values)


def go_on(trainer: Any) -> None:
    """Put the counters of an adopted checkpoint in place, once the training loop has set its own to zero."""
    checkpoint, trainer.adopted = trainer.adopted, None
    if checkpoint is None:
        return
    saved = TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))
    for name in ("global_step", "epoch", "log_history", "num_input_tokens_seen", "total_flos", "stateful_callbacks"):
        setattr(trainer.state, name, getattr(saved, name))
    state.load(trainer, checkpoint, same_ranks=False)
    if (checkpoint / "scheduler.pt").exists():
        trainer.lr_scheduler.load_state_dict(torch.load(checkpoint / "scheduler.pt", weights_only=True))
        for group, rate in zip(trainer.optimizer.param_groups, trainer.lr_scheduler.get_last_lr(), strict=True):
            group["lr"] = rate
    apply_changes(trainer, read_manifest(checkpoint).facts)


def apply_changes(trainer: Any, then: Mapping[str, Any]) -> None:
    """Have a learning rate or a weight decay that was allowed to change count: what was loaded holds the old one.

    Raises:
        UserError: if the old one was 0, from which no scale leads to the new one.
    """
    for name, keys in {"learning_rate": ("lr", "initial_lr"), "weight_decay": ("weight_decay",)}.items():
        old, new = _setting(then, name), getattr(trainer.args, name)
        if old is None or old == new:
            continue
        if old == 0:
            raise UserError(f"{name} was 0 in the checkpoint and cannot be changed to {new}; start anew")
        for group in trainer.optimizer.param_groups:
            group.update({key: group[key] * new / old for key in keys if key in group})
        if name == "learning_rate":
            scheduler = trainer.lr_scheduler
            scheduler = getattr(scheduler, "scheduler", scheduler)
            for key in ("base_lrs", "_last_lr"):
                setattr(scheduler, key, [rate * new / old for rate in getattr(scheduler, key)])


def _setting(facts: Mapping[str, Any], name: str) -> float | None:
    """A setting of the optimizer, from the facts of a run or of the library."""
    found = facts["config"].get(f"optimizer.{name}") if "config" in facts else facts["settings"]["args"].get(name)
    return None if found is None else float(found)


def check_offered(then: Mapping[str, Any], now: Mapping[str, Any], checkpoint: Path) -> None:
    """Refuse what cannot be put together.

    Raises:
        UserError: for FSDP.
    """
    if "fsdp" in (then["engine"], now["engine"]) and not moments_go_on(then, now):
        raise UserError(
            f"{checkpoint.name} of step {step_of(checkpoint)} has world_size={then['world_size']} and "
            f"engine={then['engine']}, this run {now['world_size']} and {now['engine']}; shares of FSDP are not put "
            "together here: go on with the processes and the engine it was written with"
        )
