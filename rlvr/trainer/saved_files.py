"""What a trainer has to save: which files its engine writes, how large they are, what this rank holds of weights."""

import json
from pathlib import Path
from typing import Any

import torch

from rlvr.launch.agreement import zero_stage
from rlvr.trainer.facts import engine_name
from rlvr.trainer.state import file_name

WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "adapter_model.safetensors")
"""One of them holds what is trained."""


def engine_of(trainer: Any) -> str:
    """The engine of a trainer, as `engine_name` calls it."""
    if not trainer.is_deepspeed_enabled:
        return engine_name(None, trainer.is_fsdp_enabled)
    return engine_name(zero_stage(trainer.accelerator.state.deepspeed_plugin.hf_ds_config.config))


def held_parts(model: torch.nn.Module) -> list[tuple[str, torch.Tensor]]:
    """Name and values of what this rank holds of each parameter: all of it, or its share under ZeRO-3."""
    return [(name, getattr(values, "ds_tensor", values)) for name, values in model.named_parameters()]


def state_bytes(model: torch.nn.Module) -> int:
    """Bytes that a checkpoint takes at least: the weights, and two moments of what is trained."""
    total = 0
    for values in model.parameters():
        count = getattr(values, "ds_numel", values.numel())
        total += count * values.element_size() * (3 if values.requires_grad else 1)
    return total


def expected(trainer: Any, folder: Path, ranks: int | None = None) -> list[str]:
    """The files, by relative path, without which a run would go on as another one and nobody would notice.

    Args:
        trainer: whose engine writes them.
        folder: the checkpoint, written.
        ranks: that wrote it; those of this run if not given.
    """
    count = ranks or trainer.ranks.count
    names = [file_name(rank) for rank in range(count)]
    names += [f"rng_state_{rank}.pth" for rank in range(count)] if count > 1 else ["rng_state.pth"]
    names += ["trainer_state.json", *_weights(folder)]
    if trainer.is_deepspeed_enabled:
        names += _shards(folder, int(engine_of(trainer).removeprefix("zero")), count)
    elif not trainer.is_fsdp_enabled:
        names.append("optimizer.pt")
    if type(trainer.lr_scheduler).__name__ != "DeepSpeedSchedulerWrapper":  # that one is in the engine's files
        names.append("scheduler.pt")
    if getattr(trainer.accelerator, "scaler", None) is not None:
        names.append("scaler.pt")
    return names


def _weights(folder: Path) -> list[str]:
    found = [name for name in WEIGHTS if (folder / name).exists()]
    if "model.safetensors.index.json" in found:
        shards = json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"].values()
        return [*found, *sorted(set(shards))]
    sharded = (folder / "latest").exists() or any(folder.glob("pytorch_model_fsdp*"))
    return found or ([] if sharded else [WEIGHTS[0]])  # an engine that does not gather has them in its own files


def _shards(folder: Path, stage: int, ranks: int) -> list[str]:
    """What DeepSpeed writes; its names may have the dtype before them."""
    latest = folder / "latest"
    tag = latest.read_text().strip() if latest.exists() else "global_step"
    shares = [f"zero_pp_rank_{rank}_mp_rank_00" for rank in range(ranks)]
    names = [f"{share}_optim_states.pt" for share in shares] if stage else []
    names += [f"{share}_model_states.pt" for share in shares] if stage == 3 else ["mp_rank_00_model_states.pt"]
    found = {name: sorted((folder / tag).glob(f"*{name}")) for name in names}
    return ["latest", *(f"{tag}/{paths[0].name if paths else name}" for name, paths in found.items())]
