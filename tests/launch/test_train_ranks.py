"""`rlvr train` as people start it, on two processes: it trains what was asked for, or says why it does not."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.source import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

SMALL = ["rollouts.prompts=8", "evaluation.problems=8", "run.name=x", "launch.timeout_seconds=120"]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
ACCELERATE = [sys.executable, "-m", "accelerate.commands.launch", "--num_processes", "2", "--num_machines", "1"]
ZERO2_YAML = """
compute_environment: LOCAL_MACHINE
distributed_type: DEEPSPEED
deepspeed_config: {zero_stage: 2, gradient_accumulation_steps: 1, zero3_init_flag: false}
mixed_precision: 'no'
num_machines: 1
num_processes: 2
machine_rank: 0
main_training_function: main
use_cpu: true
"""


def command(place: Path, settings: Sequence[str], launcher: Sequence[str] = ()) -> list[str]:
    return [*(launcher or [sys.executable]), "-m", "rlvr.cli", "train", f"run.dir={place / 'runs'}", *SMALL, *settings]


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "DS_ACCELERATOR": "cpu", **more}


def run(place: Path, settings: Sequence[str], launcher: Sequence[str] = (), **more: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        command(place, settings, launcher), cwd=place, env=environment(**more), capture_output=True, text=True
    )


LOSSES: dict[str, list[float]] = {}
"""By engine; the same rollouts give the same update on each."""

SHARDS = {
    "none": ["rlvr_state_0.pt", "rlvr_state_1.pt"],
    "zero2": [f"global_step2/zero_pp_rank_{rank}_mp_rank_00_optim_states.pt" for rank in (0, 1)],
    "zero3": [f"global_step2/zero_pp_rank_{rank}_mp_rank_00_model_states.pt" for rank in (0, 1)],
}
"""What only two ranks under this engine leave in a checkpoint."""


@pytest.mark.parametrize("engine", list(SHARDS))
def test_a_run_starts_its_own_ranks_or_joins_those_of_torchrun(engine: str, tmp_path: Path) -> None:
    launcher = TORCHRUN if engine == "none" else []
    done = run(tmp_path, ["launch.processes=2", f"deepspeed={engine}", "run.steps=2"], launcher)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("held-out accuracy before") == 1
    folder = tmp_path / "runs" / "x"
    checkpoint = folder / "checkpoints" / "checkpoint-2"
    assert [name for name in SHARDS[engine] if not (checkpoint / name).is_file()] == []
    assert len(list(checkpoint.glob("rlvr_state_*.pt"))) == 2
    logs = [] if launcher else ["rank_0001.log"]
    assert [path.name for path in (folder / "ranks").glob("*/*")] == logs
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["x"]
    LOSSES[engine] = [json.loads(line)["loss"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for losses in LOSSES.values():
        assert LOSSES[engine] == pytest.approx(losses, abs=1e-6)


def test_a_launchers_only_rank_trains_as_a_process_alone_does(tmp_path: Path) -> None:
    losses = []
    for name, settings in {"alone": [], "launched": ["launch.max_restarts=1"]}.items():
        (tmp_path / name).mkdir()
        done = run(tmp_path / name, ["run.steps=2", *settings])
        assert done.returncode == 0, done.stdout + done.stderr
        rows = (tmp_path / name / "runs" / "x" / "metrics.jsonl").read_text().splitlines()
        losses.append([json.loads(row)["loss"] for row in rows])
    assert losses[0] == losses[1]


def test_launches_gone_wrong_end_with_a_message(tmp_path: Path) -> None:
    (tmp_path / "zero2.yaml").write_text(ZERO2_YAML)
    yaml = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", "zero2.yaml"]
    traps: list[tuple[Sequence[str], Sequence[str], dict[str, str], str]] = [
        ([*ACCELERATE, "--cpu"], [], {}, "accelerate launch was asked for several processes and has started one"),
        (yaml, [], {}, "accelerate launch asks for DeepSpeed, but the configuration has deepspeed=none"),
        (yaml, ["deepspeed=zero2"], {"ACCELERATE_USE_CPU": "true"}, "ACCELERATE_USE_CPU is set together with"),
        (TORCHRUN, ["launch.processes=4"], {}, "WORLD_SIZE is 2, but launch.processes=4 asks for 4 processes"),
        ([], ["launch.processes=2", "launch.interface=nope"], {}, "has no interface nope; expected one of"),
    ]
    for launcher, settings, more, said in traps:
        done = run(tmp_path, settings, launcher, **more)
        assert done.returncode != 0, said
        assert said in done.stderr, done.stdout + done.stderr
        assert not (tmp_path / "runs").exists() or list((tmp_path / "runs").iterdir()) == []


def test_what_a_rank_refuses_is_said_once(tmp_path: Path) -> None:
    done = run(tmp_path, ["launch.processes=2", "trl.loss_type=grpo"])
    assert done.returncode == 2
    assert done.stderr.count("trl.loss_type is not taken here") == 1
    assert "Traceback" not in done.stdout + done.stderr
    assert not (tmp_path / "runs" / "x").exists()


def test_a_run_whose_rank_is_killed_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    settings = ["launch.processes=2", "launch.max_restarts=1", "run.steps=12", "run.save_steps=1"]
    process = subprocess.Popen(
        command(tmp_path, settings), cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    checkpoints = tmp_path / "runs" / "x" / "checkpoints"
    deadline = time.monotonic() + 120
    while not (checkpoints / "checkpoint-3").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    (status,) = (tmp_path / "runs").glob(".launch-x-*/0/1.pid")
    os.kill(json.loads(status.read_text())["pid"], signal.SIGKILL)
    out, error = process.communicate(timeout=200)
    assert process.returncode == 0, out + error
    assert "the run crashed; restart 1 of 1 in a row, from the checkpoint of step" in error
    assert "going on from" in out
    assert json.loads((tmp_path / "runs/x/summary.json").read_text())["steps"] == 12
    steps = [json.loads(line)["step"] for line in (tmp_path / "runs/x/metrics.jsonl").read_text().splitlines()]
    assert steps == list(range(1, 13))
    assert len(list((tmp_path / "runs/x/ranks").iterdir())) == 2, "a folder of logs for each start"
