"""`rlvr resume-check`: what differs is found and named; a run that resumes exactly passes."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from rlvr.checkpoints.manifest import measure, write_manifest
from rlvr.config.compose import compose
from rlvr.errors import UserError
from rlvr.resume_check import check, difference
from rlvr.run_folder import RunFolder


def weights() -> dict[str, torch.Tensor]:
    return {"head": torch.arange(6.0).reshape(2, 3), "tail": torch.tensor([float("nan"), 1.0])}


def moments() -> dict[str, Any]:
    return {"state": [{"exp_avg": torch.ones(2), "step": 4}], "lr": 0.5}


def a_run(
    path: Path, model: Any = None, optimizer: Any = None, rows: Any = None, extra: str | None = None
) -> RunFolder:
    """A run folder with one checkpoint, of step 4."""
    folder = path / "checkpoints/checkpoint-4"
    folder.mkdir(parents=True)
    save_file(model or weights(), folder / "model.safetensors")
    torch.save(optimizer or moments(), folder / "optimizer.pt")
    (folder / "trainer_state.json").write_text(str(path))
    if extra:
        (folder / extra).write_text("x")
    write_manifest(folder, measure(folder, 4, {}))
    rows = rows or [{"step": step, "loss": step / 8, "seconds": hash(path)} for step in range(1, 5)]
    (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return RunFolder(path)


def test_runs_that_are_alike_differ_in_nothing_but_times(tmp_path: Path) -> None:
    assert difference(a_run(tmp_path / "a"), a_run(tmp_path / "b"), 4) is None


def test_the_first_tensor_that_differs_is_named_and_weights_come_first(tmp_path: Path) -> None:
    model, optimizer = weights(), moments()
    model["head"][1, 1] += 0.25
    optimizer["state"][0]["exp_avg"][1] = 3.0
    found = difference(a_run(tmp_path / "a"), a_run(tmp_path / "b", model, optimizer), 4)
    assert found == "model.safetensors: head differs in 1 of 6 numbers, by 0.25 at most"


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        (("state", 0, "exp_avg"), torch.tensor([1.0, 3.0]), "state[0].exp_avg differs in 1 of 2 numbers, by 2 at most"),
        (("state", 0, "exp_avg"), torch.ones(3), "state[0].exp_avg is torch.float32 (2,), then torch.float32 (3,)"),
        (("state", 0, "step"), 5, "state[0].step is 4, then 5"),
        (("lr",), 0.25, "lr is 0.5, then 0.25"),
    ],
)
def test_moments_and_counters_are_compared(tmp_path: Path, place: tuple, value: Any, said: str) -> None:
    optimizer: Any = moments()
    part = optimizer
    for key in place[:-1]:
        part = part[key]
    part[place[-1]] = value
    assert difference(a_run(tmp_path / "a"), a_run(tmp_path / "b", None, optimizer), 4) == f"optimizer.pt: {said}"


def test_rows_of_metrics_are_compared(tmp_path: Path) -> None:
    rows = [{"step": step, "loss": 9.0 if step == 3 else step / 8} for step in range(1, 5)]
    found = difference(a_run(tmp_path / "a"), a_run(tmp_path / "b", rows=rows), 4)
    assert found == "the checkpoints are alike, but in metrics.jsonl step 3 has loss=0.375, then 9.0"
    found = difference(a_run(tmp_path / "c"), a_run(tmp_path / "d", rows=rows[:2]), 4)
    assert found is not None
    assert "there are 4 rows, then 2" in found


def test_a_file_of_one_side_only_is_named(tmp_path: Path) -> None:
    found = difference(a_run(tmp_path / "a"), a_run(tmp_path / "b", extra="zero.pt"), 4)
    assert found == "zero.pt is a file of one checkpoint only"


def test_what_cannot_be_checked_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = [f"run.dir={tmp_path}", "run.name=x"]
    with pytest.raises(UserError, match="set launch=local"):
        check(compose([*place, "launch=slurm", "launch.nodes=1", "launch.processes=1"]))
    with pytest.raises(UserError, match="--steps is 0; expected 1 or more"):
        check(compose(place), half=0)
    (tmp_path / "x-resume-check").mkdir()
    with pytest.raises(UserError, match="exists; give --overwrite"):
        check(compose(place))
    (tmp_path / "x-resume-check/thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match=r"holds thesis\.tex"):
        check(compose(place), overwrite=True)
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(UserError, match="start it once"):
        check(compose(place))


ROOT = Path(__file__).resolve().parents[2]
SMALL = [
    "run.name=x", "rollouts.prompts=4", "rollouts.num_generations=4", "rollouts.max_completion_length=16",
    "data.train_size=10", "data.heldout_size=4", "evaluation.problems=2", "logging.progress=none",
]  # fmt: skip


def checked(folder: Path, *settings: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "rlvr.cli", "resume-check", f"run.dir={folder}", *SMALL, *settings]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder, env=environment)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_run_that_stops_in_the_middle_of_a_rollout_batch_goes_on_exactly(tmp_path: Path) -> None:
    done = checked(tmp_path, "optimizer.updates_per_rollout=2", "optimizer.lr_scheduler_type=linear")
    assert done.returncode == 0, done.stderr
    assert "6 steps equal 3 + 3, bit for bit: 6 rows of metrics" in done.stdout


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_reward_with_a_memory_of_its_own_is_found_out(tmp_path: Path) -> None:
    """A function that counts its calls forgets them in a new process: the one fault that only the user can make."""
    (tmp_path / "moody.py").write_text(
        "calls = 0\n\ndef mood(completions, golds):\n    global calls\n    calls += 1\n"
        "    return [float((index + calls) % 4) for index, _ in enumerate(completions)]\n"
    )
    reward = "+reward.custom={path: 'moody:mood', weight: 1.0}"
    done = checked(tmp_path, reward, "algorithm=grpo", "--steps", "1")
    assert done.returncode == 2, done.stdout + done.stderr
    assert "2 steps are not 1 + 1: model.safetensors: " in done.stderr
    assert "step 2 has" in done.stderr
