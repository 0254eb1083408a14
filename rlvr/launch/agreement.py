"""What all ranks must have alike, compared before the first step: a wrong launch trains something else silently."""

import hashlib
import importlib.metadata
import json
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from rlvr.config.convert import to_mapping
from rlvr.config.schema import RunConfig
from rlvr.errors import UserError
from rlvr.launch.status import Disagreement

PACKAGES = ("torch", "transformers", "trl", "accelerate")
"""Packages whose version decides what a step computes, beside this one."""

SHOWN = 3
"""Differences in a message."""

Value = TypeVar("Value")


def config_hash(config: RunConfig) -> str:
    """Twelve hexadecimal digits of the SHA-256 of a configuration without `launch`, which differs from node to node."""
    values = {name: section for name, section in to_mapping(config).items() if name != "launch"}
    return hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode()).hexdigest()[:12]


def versions() -> str:
    """The packages that decide what a step computes, with their versions."""
    return ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("rlvr", *PACKAGES))


def differences(found: Sequence[Mapping[str, Any]], asked: Mapping[str, Any]) -> list[str]:
    """Where ranks have something else than was asked, each as `rank 1 has back end nccl instead of gloo`.

    Args:
        found: by rank, what each has.
        asked: what each should have; None for what rank 0 has.
    """
    expected = {name: found[0][name] if value is None else value for name, value in asked.items()}
    return [
        f"rank {rank} has {name} {facts[name]} instead of {expected[name]}"
        for rank, facts in enumerate(found)
        for name in expected
        if facts[name] != expected[name]
    ]


def alone() -> bool:
    """Whether this process has no others to agree with."""
    import torch.distributed as dist

    return not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1


def everywhere(value: Value) -> list[Value]:
    """The value of every rank, in rank order; called by all together. For a single process no message is sent."""
    import torch.distributed as dist

    if alone():
        return [value]
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def check(facts: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
    """Stop every rank with the same message where one differs; called by all ranks together.

    Args:
        facts: what this rank has, by name.
        asked: what every rank should have; None for what rank 0 has.

    Raises:
        Disagreement: with the first ranks that differ, on every rank.
    """
    other = differences(everywhere(dict(facts)), asked)
    if other:
        more = f" and {len(other) - SHOWN} more" if len(other) > SHOWN else ""
        raise Disagreement(
            f"the processes are not what was asked for: {'; '.join(other[:SHOWN])}{more}; start all of them with the "
            "same command, the same packages and the same environment"
        )


def check_start(config: RunConfig, back_end: str) -> None:
    """Compare world size, back end, configuration and packages of all ranks, once they have met.

    Raises:
        Disagreement: on every rank, where one differs.
    """
    import torch.distributed as dist

    facts = {
        "world size": dist.get_world_size(),
        "back end": dist.get_backend(),
        "configuration": config_hash(config),
        "packages": versions(),
    }
    asked = {"world size": config.launch.ranks, "back end": back_end, "configuration": None, "packages": None}
    check(facts, asked)


def zero_stage(deepspeed: Mapping[str, Any]) -> int | None:
    """DeepSpeed's stage: from 1 optimizer states, from 2 gradients, from 3 weights are shared among the processes.

    Args:
        deepspeed: its configuration; empty for none.

    Returns:
        0 to 3; None without DeepSpeed.

    Raises:
        UserError: for a stage that there is not.
    """
    stage = (deepspeed.get("zero_optimization") or {}).get("stage", 0)
    if stage not in (0, 1, 2, 3):
        raise UserError(f"deepspeed.zero_optimization.stage is {stage!r}; expected 0, 1, 2 or 3")
    return int(stage) if deepspeed else None


def engine_of(model_wrapped: Any) -> str:
    """What wraps the model: `DeepSpeedEngine with ZeRO-2`, `DistributedDataParallel`, or `no engine`."""
    name = type(model_wrapped).__name__
    if name == "DeepSpeedEngine":
        return f"{name} with ZeRO-{model_wrapped.zero_optimization_stage()}"
    return name if name in ("DistributedDataParallel", "FullyShardedDataParallel") else "no engine"


def check_engine(model_wrapped: Any, expected_stage: int | None, ranks: int) -> None:
    """Compare the trainer's engine on every rank with what was asked; called by all ranks, once it is built.

    Args:
        model_wrapped: the trainer's `model_wrapped`, after `accelerator.prepare`.
        expected_stage: of ZeRO, as `zero_stage` gives it; None for no DeepSpeed.
        ranks: processes of the run.

    Raises:
        Disagreement: on every rank, where one differs.
    """
    found = engine_of(model_wrapped)
    alone = "no engine" if ranks == 1 else "DistributedDataParallel"
    if ranks == 1 and expected_stage is None and found == "DistributedDataParallel":
        return  # accelerate wraps the model of whoever a launcher has started; among one, it changes nothing
    asked = alone if expected_stage is None else f"DeepSpeedEngine with ZeRO-{expected_stage}"
    check({"engine": found}, {"engine": asked})
