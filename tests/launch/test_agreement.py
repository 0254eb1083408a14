"""What all ranks must have alike."""

from dataclasses import replace
from typing import Any

import pytest

from rlvr.config.compose import compose
from rlvr.errors import UserError
from rlvr.launch.agreement import check, check_engine, check_start, config_hash, differences, engine_of, zero_stage
from rlvr.launch.status import Disagreement
from tests.ranks import run_ranks


def test_differences_name_the_rank_what_it_has_and_what_was_asked() -> None:
    found = [{"engine": "a", "seed": 1}, {"engine": "b", "seed": 1}, {"engine": "a", "seed": 2}]
    assert differences(found, {"engine": "a", "seed": None}) == [
        "rank 1 has engine b instead of a",
        "rank 2 has seed 2 instead of 1",
    ]
    assert differences(found[:1], {"engine": "b", "seed": None}) == ["rank 0 has engine a instead of b"]
    assert differences(found[:1], {"engine": "a"}) == []


def test_a_hash_is_of_what_shapes_the_run() -> None:
    config = compose(["run.name=x", "launch.nodes=2"])
    other = replace(config, launch=replace(config.launch, node_rank=1, interface="ib0"))
    assert config_hash(config) == config_hash(other) != config_hash(compose(["run.name=y", "launch.nodes=2"]))


class DeepSpeedEngine:
    """Only as much as is asked of DeepSpeed's."""

    def __init__(self, stage: int) -> None:
        self.stage = stage

    def zero_optimization_stage(self) -> int:
        return self.stage


class DistributedDataParallel:
    """Only its name."""


class Qwen3ForCausalLM:
    """A model that nothing wraps."""


@pytest.mark.parametrize(
    ("model", "stage", "ranks"),
    [
        (Qwen3ForCausalLM(), None, 1),
        (DistributedDataParallel(), None, 1),  # a launcher's only rank
        (DistributedDataParallel(), None, 2),
        (DeepSpeedEngine(0), 0, 1),
        (DeepSpeedEngine(3), 3, 2),
    ],
)
def test_the_engine_that_was_asked_for(model: Any, stage: int | None, ranks: int) -> None:
    check_engine(model, stage, ranks)


@pytest.mark.parametrize(
    ("model", "stage", "ranks", "said"),
    [
        (DistributedDataParallel(), 2, 2, "engine DistributedDataParallel instead of DeepSpeedEngine with ZeRO-2"),
        (DistributedDataParallel(), 2, 1, "engine DistributedDataParallel instead of DeepSpeedEngine with ZeRO-2"),
        (DeepSpeedEngine(2), 3, 2, "engine DeepSpeedEngine with ZeRO-2 instead of DeepSpeedEngine with ZeRO-3"),
        (DeepSpeedEngine(2), None, 2, "engine DeepSpeedEngine with ZeRO-2 instead of DistributedDataParallel"),
        (Qwen3ForCausalLM(), None, 2, "engine no engine instead of DistributedDataParallel"),
    ],
)
def test_another_engine(model: Any, stage: int | None, ranks: int, said: str) -> None:
    with pytest.raises(Disagreement, match=f"the processes are not what was asked for: rank 0 has {said}; start all"):
        check_engine(model, stage, ranks)


def test_the_names_are_those_of_the_libraries() -> None:
    from deepspeed import DeepSpeedEngine as Real
    from torch.nn.parallel import DistributedDataParallel as RealParallel

    assert Real.__name__ == DeepSpeedEngine.__name__
    assert callable(Real.zero_optimization_stage)
    assert RealParallel.__name__ == DistributedDataParallel.__name__
    assert engine_of(Qwen3ForCausalLM()) == "no engine"


def test_the_stage_of_a_configuration() -> None:
    assert [zero_stage(compose([f"deepspeed={name}"]).deepspeed) for name in ("none", "zero1", "zero3_offload")] == [
        None, 1, 3,
    ]  # fmt: skip
    assert zero_stage({"train_batch_size": "auto"}) == 0


def message(act: Any, *args: Any) -> str:
    try:
        act(*args)
    except UserError as error:
        return str(error)
    return ""


def test_every_rank_stops_with_the_same_message() -> None:
    def on_rank(rank: int) -> list[str]:
        mine = compose(["run.name=x", f"run.seed={rank}"])
        same = compose(["run.name=x", "launch.processes=2"])
        wanted = replace(same, launch=replace(same.launch, processes=3))
        return [
            message(check, {"engine": "ab"[rank]}, {"engine": "a"}),
            message(check_start, mine, "gloo"),
            message(check_start, same, "gloo"),
            message(check_start, same, "nccl"),
            message(check_start, wanted, "gloo"),
        ]

    first, second = run_ranks(2, on_rank)
    assert first == second
    assert "rank 1 has engine b instead of a" in first[0]
    assert "rank 1 has configuration" in first[1]
    assert first[2] == ""
    assert "rank 0 has back end gloo instead of nccl; rank 1 has back end gloo instead of nccl" in first[3]
    assert "rank 0 has world size 2 instead of 3" in first[4]
