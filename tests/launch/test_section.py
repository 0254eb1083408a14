"""The section `launch`."""

from typing import Any

import pytest

from rlvr.config.compose import compose
from rlvr.errors import UserError
from rlvr.launch.section import LaunchSection
from rlvr.plan import show_plan


@pytest.mark.parametrize(
    ("values", "ranks"), [({}, None), ({"processes": 1}, 1), ({"processes": 8, "nodes": 4}, 32), ({"nodes": 2}, 2)]
)
def test_processes_are_counted_on_every_node(values: dict[str, Any], ranks: int | None) -> None:
    assert LaunchSection(**values).ranks == ranks


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"kind": "mpi"}, "launch.kind is 'mpi'; expected one of local, slurm"),
        ({"processes": 0}, "launch.processes is 0; expected a whole number of at least 1"),
        ({"nodes": 0}, "launch.nodes is 0"),
        ({"timeout_seconds": 0}, "launch.timeout_seconds is 0"),
        ({"max_restarts": -1}, "launch.max_restarts is -1; expected a whole number of at least 0"),
        ({"main_port": 0}, "launch.main_port is 0; expected a whole number of at least 1"),
        ({"main_port": 65536}, "launch.main_port is 65536; expected a port from 1 to 65535, e.g. 29500"),
        ({"nodes": 2, "node_rank": 2}, "launch.node_rank is 2 of launch.nodes=2; expected 0 to 1"),
    ],
)
def test_values_that_make_no_launch(values: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        LaunchSection(**values)


def test_a_choice_of_launch_and_of_a_stage_compose() -> None:
    config = compose(["launch=slurm", "launch.nodes=4", "launch.processes=8", "deepspeed=zero3_offload"])
    assert (config.launch.kind, config.launch.ranks) == ("slurm", 32)
    zero = config.deepspeed["zero_optimization"]
    assert (zero["stage"], zero["offload_param"]["device"]) == (3, "cpu")
    assert compose([]).launch == LaunchSection()
    assert compose([]).deepspeed == {}


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_every_stage_leaves_sizes_and_precision_to_the_run(stage: int) -> None:
    chosen = compose([f"deepspeed=zero{stage}"]).deepspeed
    assert chosen["zero_optimization"]["stage"] == stage
    assert chosen["zero_allow_untested_optimizer"] is True
    sizes = ("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps", "gradient_clipping")
    assert [chosen[name] for name in sizes] == ["auto"] * 4
    assert [chosen[name]["enabled"] for name in ("bf16", "fp16")] == ["auto"] * 2


def test_a_plan_is_made_for_the_processes_that_are_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    show_plan(compose(["launch.processes=8"]))
    assert "256 rows / 8 processes = 32 rows on each" in capsys.readouterr().out
    show_plan(compose(["launch.processes=8"]), processes=2)
    assert "256 rows / 2 processes = 128 rows on each" in capsys.readouterr().out
