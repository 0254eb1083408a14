"""`rlvr train` on two processes, one of which is asked to end or stands still."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.source import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

TIMES = ("seconds", "step_time", "verifier/seconds")


def run(place: Path, *settings: str, mischief: str = "") -> tuple[subprocess.CompletedProcess, float]:
    """The finished command, and seconds from the mischief to its end."""
    noted = place / "noted"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "DS_ACCELERATOR": "cpu"}
    if mischief:
        environment["MISCHIEF"] = f"{mischief}:{noted}"
    command = [
        sys.executable, "-m", "rlvr.cli", "train", f"run.dir={place}", "run.name=x", "rollouts.prompts=8",
        "rollouts.max_completion_length=16", "evaluation.problems=4", "launch.processes=2",
        "+reward.custom={path: 'tests.faults.mischief:disturb', weight: 0.5}", *settings,
    ]  # fmt: skip
    place.mkdir(exist_ok=True)
    done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True)
    ended = time.time()
    return done, ended - float(noted.read_text()) if noted.exists() else 0.0


def rows(place: Path) -> list[dict[str, Any]]:
    """The rows of `metrics.jsonl`, without times."""
    lines = map(json.loads, (place / "x" / "metrics.jsonl").read_text().splitlines())
    return [{name: value for name, value in row.items() if not name.startswith(TIMES)} for row in lines]


def test_one_rank_is_asked_to_end_and_the_run_goes_on_exactly(tmp_path: Path) -> None:
    settings = ["deepspeed=zero2", "run.steps=5", "launch.timeout_seconds=120"]
    whole, _ = run(tmp_path / "whole", *settings)
    assert whole.returncode == 0, whole.stdout + whole.stderr
    cut, seconds = run(tmp_path / "cut", *settings, mischief="ask:1:3")
    assert cut.returncode == 75, cut.stdout + cut.stderr
    slowest = max(json.loads(line)["step_time"] for line in (tmp_path / "cut/x/metrics.jsonl").open())
    assert seconds < slowest + 10, f"{seconds:.1f} s after the signal, a step takes {slowest:.1f} s"
    folder = tmp_path / "cut" / "x"
    assert [path.name for path in (folder / "checkpoints").iterdir()] == ["checkpoint-3"]
    assert not (folder / "summary.json").exists(), "no closing evaluation"
    assert cut.stderr.count("step 3 is the last one and saved: go on with run.resume=true") == 1
    resumed, _ = run(tmp_path / "cut", *settings, "run.resume=true")
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    assert rows(tmp_path / "cut") == rows(tmp_path / "whole")
    weights = [tmp_path / name / "x/checkpoints/checkpoint-5/model.safetensors" for name in ("cut", "whole")]
    assert weights[0].read_bytes() == weights[1].read_bytes()


def test_a_rank_that_stands_still_ends_the_job_with_the_stacks_of_all(tmp_path: Path) -> None:
    timeout = 15
    done, seconds = run(tmp_path, "run.steps=4", f"launch.timeout_seconds={timeout}", mischief="stall:1:2")
    assert done.returncode not in (0, 75), done.stdout + done.stderr
    assert seconds < timeout + 10, f"{seconds:.1f} s"
    stacks = {rank: (tmp_path / "x" / "stacks" / f"rank_{rank}.txt").read_text() for rank in (0, 1)}
    for text in stacks.values():
        assert text.startswith("Timeout (0:00:12)!")
    assert "in stall" in stacks[1]
    assert "it moved on" not in stacks[1]
    assert "in stall" not in stacks[0]
    assert "in _calculate_rewards" in stacks[0], "waits for the rewards of the other"
