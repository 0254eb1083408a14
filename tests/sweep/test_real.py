"""Cells that train: a sweep that is killed goes on to the table of one that was not."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rlvr.sweep.folder import SweepFolder
from tests.source import ROOT

pytestmark = pytest.mark.slow

SETTINGS = [
    "selection.keep=0.2,1.0", "run.seed=0,1", "run.steps=2", "run.save_steps=1", "rollouts.prompts=8",
    "evaluation.problems=16", "data.train_size=64", "rollouts.record.every=1", "--name", "x", "--workers", "2",
]  # fmt: skip


def sweep(folder: Path) -> subprocess.Popen:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "rlvr.cli", "sweep", *SETTINGS, f"run.dir={folder}"]
    return subprocess.Popen(command, env=environment, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def ended(process: subprocess.Popen) -> int:
    _, said = process.communicate(timeout=400)
    assert process.returncode in (0, -9), said.decode()
    return process.returncode


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("whole")
    assert ended(sweep(place)) == 0
    return place / "x"


@pytest.mark.timeout(900)
def test_a_killed_sweep_goes_on_to_the_same_table(whole: Path, tmp_path: Path) -> None:
    folder = SweepFolder(tmp_path / "x")
    # Three times: as the cells start, as soon as one has a checkpoint, and when one is finished.
    for sign in ("logs/*.txt", "*/checkpoints/checkpoint-1/MANIFEST.json", "*/summary.json"):
        process = sweep(tmp_path)
        deadline = time.monotonic() + 300
        while not list(folder.path.glob(sign)) and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
        ended(process)
    assert ended(sweep(tmp_path)) == 0
    for name in ("table.csv", "table.md"):
        assert (folder.path / name).read_text() == (whole / name).read_text()


def test_arms_with_the_same_seed_begin_with_the_same_rollouts(whole: Path) -> None:
    import pyarrow.parquet as parquet

    def record(arm: str, seed: int, step: int) -> list[dict]:
        table = parquet.read_table(whole / f"{arm}-seed{seed}" / "rollouts" / f"step_{step:06d}.parquet")
        return table.select(["row", "prompt", "token_ids"]).to_pylist()

    assert record("keep_0.2", 0, 1) == record("keep_1.0", 0, 1), "one policy, one seed: the same tokens"
    assert record("keep_0.2", 0, 1) != record("keep_0.2", 1, 1)
    prompts = [[row["prompt"] for row in record(arm, 1, 2)] for arm in ("keep_0.2", "keep_1.0")]
    assert prompts[0] == prompts[1], "later steps ask the same prompts of different policies"
