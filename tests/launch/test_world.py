"""Who a process is among those of its job, and launches gone wrong."""

import os
from typing import Any

import pytest

from rlvr.cli import main
from rlvr.config.compose import compose
from rlvr.errors import UserError
from rlvr.launch.section import LaunchSection
from rlvr.launch.status import STATUS_DIR
from rlvr.launch.world import adopt_slurm, check_launcher, first_host, is_rank, node_count
from rlvr.preflight import check_launch, planned_ranks

TORCHRUN = {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}
SRUN = {
    "SLURM_PROCID": "5", "SLURM_STEP_NUM_TASKS": "8", "SLURM_STEP_NUM_NODES": "2", "SLURM_LOCALID": "1",
    "SLURM_STEP_NODELIST": "gpu[003-004]", "SLURM_JOB_ID": "20123", "SLURM_STEP_ID": "0",
}  # fmt: skip
ZERO = {"zero_optimization": {"stage": 2}}


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("gpu003", "gpu003"),
        ("gpu[003-010,12]", "gpu003"),
        ("gpu[7]", "gpu7"),
        ("a1,b[2-3]", "a1"),
        ("rack[1-2]n,x", "rack1n"),
        ("node-4.cluster", "node-4.cluster"),
    ],
)
def test_the_first_host_of_a_list(nodes: str, first: str) -> None:
    assert first_host(nodes) == first


def test_what_srun_sets_becomes_what_torch_reads() -> None:
    environment = dict(SRUN)
    adopt_slurm(environment)
    expected = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4", "MASTER_ADDR": "gpu003"}
    assert {name: environment[name] for name in expected} == expected
    assert environment["MASTER_PORT"] == "20123"  # 20000 + 20123 mod 20000
    assert node_count(environment) == 2
    check_launcher(environment, LaunchSection(processes=4, nodes=2), {})


def test_the_script_of_a_job_and_a_single_task_are_no_ranks() -> None:
    script = {"SLURM_PROCID": "0", "SLURM_NTASKS": "8", "SLURM_JOB_ID": "7"}
    shell = {"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "1", "SLURM_NTASKS": "8", "SLURM_STEP_ID": "0"}
    for environment in (script, shell, {}):
        before = dict(environment)
        adopt_slurm(environment)
        assert environment == before
        assert not is_rank(environment)


def test_a_single_task_that_rlvr_train_has_started_is_a_rank() -> None:
    task = {
        "SLURM_PROCID": "0", "SLURM_NTASKS": "1", "SLURM_STEP_NUM_TASKS": "1", "SLURM_STEP_ID": "0",
        "SLURM_JOB_ID": "7", STATUS_DIR: "status",
    }  # fmt: skip
    assert is_rank(task)
    adopt_slurm(task)
    assert (task["RANK"], task["WORLD_SIZE"], task["LOCAL_WORLD_SIZE"]) == ("0", "1", "1")
    check_launcher(task, LaunchSection(processes=1), {})
    script = {"SLURM_PROCID": "0", "SLURM_NTASKS": "1", "SLURM_JOB_ID": "7", STATUS_DIR: "status"}
    assert not is_rank(script), "outside a step nobody was started by srun"


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({**TORCHRUN, "RANK": "abc"}, "RANK is 'abc'; expected a whole number"),
        ({**TORCHRUN, "WORLD_SIZE": "two"}, "WORLD_SIZE is 'two'; expected a whole number"),
        ({**TORCHRUN, "LOCAL_RANK": "1.5"}, "LOCAL_RANK is '1.5'; expected a whole number"),
        ({**SRUN, "SLURM_STEP_NUM_TASKS": "x"}, "SLURM_STEP_NUM_TASKS is 'x'; expected a whole number"),
        ({**SRUN, "SLURM_STEP_NUM_NODES": "x"}, "SLURM_STEP_NUM_NODES is 'x'; expected a whole number"),
        ({**SRUN, "SLURM_JOB_ID": "x"}, "SLURM_JOB_ID is 'x'; expected a whole number"),
    ],
)
def test_variables_that_are_no_numbers(environment: dict[str, str], said: str) -> None:
    def read() -> None:
        adopt_slurm(environment)
        check_launcher(environment, LaunchSection(), {})

    with pytest.raises(UserError, match=said):
        read()
    with pytest.raises(UserError, match="LOCAL_WORLD_SIZE is 'x'"):
        node_count({"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "x"})


@pytest.mark.parametrize(("name", "value"), [("RANK", "abc"), ("SLURM_STEP_NUM_TASKS", "x"), ("WORLD_SIZE", "two")])
def test_rlvr_train_names_a_variable_that_is_no_number(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for other in [other for other in os.environ if other.startswith(("SLURM_", *TORCHRUN))]:
        monkeypatch.delenv(other)
    for known, usual in (SRUN if name.startswith("SLURM_") else TORCHRUN).items():
        monkeypatch.setenv(known, usual)
    monkeypatch.setenv(name, value)
    assert main(["train", "run.steps=1"]) == 2
    assert f"rlvr: {name} is {value!r}; expected a whole number" in capsys.readouterr().err


def test_torchruns_values_win_inside_a_job() -> None:
    environment = {**SRUN, **TORCHRUN}
    adopt_slurm(environment)
    assert (environment["RANK"], environment["WORLD_SIZE"]) == ("1", "2")


@pytest.mark.parametrize("values", [{}, {"processes": 2}, {"nodes": 2}, {"nodes": 2, "processes": 1}])
def test_a_rank_joins_where_its_number_is_the_one_asked_for(values: dict[str, int]) -> None:
    check_launcher(TORCHRUN, LaunchSection(**values), ZERO)


TRAPS: list[tuple[dict[str, str], dict[str, Any], dict[str, Any], str]] = [
    (
        {"ACCELERATE_MIXED_PRECISION": "no", "ACCELERATE_USE_CPU": "True", "MASTER_ADDR": "127.0.0.1"}, {}, {},
        "accelerate launch was asked for several processes and has started one",
    ),
    ({**TORCHRUN, "ACCELERATE_USE_CPU": "true"}, {}, ZERO, "ACCELERATE_USE_CPU is set together with deepspeed"),
    ({**TORCHRUN, "ACCELERATE_USE_DEEPSPEED": "true"}, {}, {}, "asks for DeepSpeed, but the configuration has"),
    ({**TORCHRUN, "ACCELERATE_USE_FSDP": "true"}, {}, {}, "asks for FSDP, which is not supported"),
    ({"WORLD_SIZE": "2"}, {}, {}, "WORLD_SIZE is 2, but RANK is not set"),
    ({"RANK": "0", "WORLD_SIZE": "2"}, {}, {}, "LOCAL_RANK, MASTER_ADDR, MASTER_PORT is not set"),
    ({**TORCHRUN, "RANK": "2"}, {}, {}, "RANK is 2 and WORLD_SIZE 2; expected a rank from 0 to 1"),
    (TORCHRUN, {"processes": 8}, {}, "WORLD_SIZE is 2, but launch.processes=8 asks for 8 processes"),
    (TORCHRUN, {"processes": 1}, {}, "WORLD_SIZE is 2, but launch.processes=1 asks for 1 processes"),
    (TORCHRUN, {"processes": 2, "nodes": 2}, {}, "launch.processes=2 on launch.nodes=2 asks for 4 processes"),
]  # fmt: skip


@pytest.mark.parametrize(("environment", "values", "deepspeed", "said"), TRAPS)
def test_launches_gone_wrong(
    environment: dict[str, str], values: dict[str, Any], deepspeed: dict[str, Any], said: str
) -> None:
    with pytest.raises(UserError, match=said):
        check_launcher(environment, LaunchSection(**values), deepspeed)


def test_one_process_without_any_launcher_is_no_trap() -> None:
    check_launcher({}, LaunchSection(), {})
    check_launcher({"ACCELERATE_USE_CPU": "true", "ACCELERATE_MIXED_PRECISION": "no"}, LaunchSection(), {})


def test_a_run_of_several_processes_does_not_begin_in_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in TORCHRUN:
        monkeypatch.delenv(name, raising=False)
    config = compose(["launch.processes=2"])
    assert planned_ranks(config) == 2
    with pytest.raises(UserError, match="launch asks for 2 processes, but this is one"):
        check_launch(config)
    for name, value in TORCHRUN.items():
        monkeypatch.setenv(name, value)
    check_launch(config)
    assert planned_ranks(compose([])) == 2
