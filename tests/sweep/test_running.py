"""Cells that train nothing: workers, failures, resumes, locks, signals, kills."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rlvr.sweep import running
from rlvr.sweep.folder import SweepFolder
from rlvr.sweep.plan import Cell
from rlvr.sweep.report import write_report
from rlvr.sweep.running import environment_of, train_command, visible_gpus
from tests.source import ROOT
from tests.sweep.fakes import keep_plan, runner, starts, written


@pytest.fixture
def folder(tmp_path: Path) -> SweepFolder:
    return written(keep_plan(), tmp_path)


def test_every_cell_is_run_once_and_its_log_is_kept(folder: SweepFolder) -> None:
    lines: list[str] = []
    outcome = runner(folder, 2, lines).run(keep_plan().cells)
    assert (outcome.failures, outcome.stopped) == ([], None)
    assert sorted(starts(folder)) == sorted(cell.name for cell in keep_plan().cells)
    assert "fake_cell.py" in folder.log("random-seed1").read_text().splitlines()[0]
    assert "this is random-seed1, OMP_NUM_THREADS=" in folder.log("random-seed1").read_text()
    assert len(lines) == 6
    assert lines[0].startswith("keep_0.2-seed0: held-out accuracy 50.0 % -> ")
    assert runner(folder).run(keep_plan().cells).failures == []
    assert len(starts(folder)) == 6, "what is finished is not run again"


def test_a_cell_that_fails_is_named_and_stops_no_other(folder: SweepFolder) -> None:
    (folder.path / "broken-random-seed0").touch()
    lines: list[str] = []
    outcome = runner(folder, 1, lines).run(keep_plan().cells)
    assert [(one.cell, one.code) for one in outcome.failures] == [("random-seed0", 3)]
    assert f"FAILED random-seed0: exit code 3, see {folder.path}/logs/random-seed0.txt" in lines
    assert "it breaks" in folder.log("random-seed0").read_text()
    assert len([cell for cell in keep_plan().cells if folder.summary(cell.name)]) == 5
    (folder.path / "broken-random-seed0").unlink()
    assert runner(folder).run(keep_plan().cells).failures == []
    assert starts(folder)[6:] == ["random-seed0"], "the failed one alone is run again"
    assert folder.log("random-seed0").read_text().count("this is") == 2


def test_a_cell_that_another_process_has_is_left_to_it(folder: SweepFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "PATIENCE_SECONDS", 0.3)
    with folder.claimed("random-seed0") as first, folder.claimed("random-seed0") as second:
        assert first is not None
        assert second is None
        outcome = runner(folder).run(keep_plan().cells)
    assert [str(one) for one in outcome.failures] == ["random-seed0: another process is running it"]
    assert "random-seed0" not in starts(folder)
    with folder.claimed("random-seed0") as free:
        assert free is not None


def sweep(folder: SweepFolder, seconds: float, workers: int = 2) -> subprocess.Popen:
    environment = {**os.environ, "FAKE_SECONDS": str(seconds), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "tests.sweep.fakes", str(folder.path), str(workers)]
    return subprocess.Popen(command, env=environment, cwd=ROOT, stdout=subprocess.DEVNULL)


def wait_for(condition, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


def alive(folder: SweepFolder) -> list[int]:
    """The processes of cells that are still there."""
    pids = [int(line.split()[1]) for line in (folder.path / "starts.txt").read_text().splitlines()]
    return [
        pid for pid in pids if Path(f"/proc/{pid}").exists() and "fake_cell" in Path(f"/proc/{pid}/cmdline").read_text()
    ]


@pytest.mark.parametrize(
    "number", [signal.SIGKILL, *(pytest.param(one, marks=pytest.mark.slow) for one in (signal.SIGTERM, signal.SIGINT))]
)
def test_a_sweep_that_is_killed_leaves_no_cell_behind_and_goes_on_to_the_same_table(
    number: int, folder: SweepFolder, tmp_path: Path
) -> None:
    process = sweep(folder, 0.3)
    wait_for(lambda: len(starts(folder)) >= 3)
    process.send_signal(number)
    assert process.wait(20) == (-9 if number == signal.SIGKILL else 99)
    wait_for(lambda: not alive(folder), 3)
    done = {cell.name for cell in keep_plan().cells if folder.summary(cell.name)}
    assert 1 <= len(done) < 6
    before = len(starts(folder))
    assert runner(folder).run(keep_plan().cells).failures == []
    assert sorted(starts(folder)[before:]) == sorted({cell.name for cell in keep_plan().cells} - done)
    whole = written(keep_plan(), tmp_path / "whole")
    runner(whole, 1).run(keep_plan().cells)
    for place in (folder, whole):
        write_report(place.path)
    for name in ("table.csv", "table.md", "sweep_report.html"):
        assert (folder.path / name).read_text() == (whole.path / name).read_text()


def test_a_new_start_waits_for_cells_that_a_killed_sweep_has_left(folder: SweepFolder, tmp_path: Path) -> None:
    """Without the kernel's signal at a parent's end the children would go on: their lock is what protects them."""
    cell = keep_plan().cells[0].name
    with folder.claimed(cell) as file:
        assert file is not None
        child = subprocess.Popen(["sleep", "0.5"], pass_fds=(file.fileno(),))
    with folder.claimed(cell) as taken:
        assert taken is None, "the child has inherited the right"
    began = time.monotonic()
    assert runner(folder).run(keep_plan().cells).failures == []
    assert time.monotonic() - began > 0.3
    child.wait()


def test_the_command_of_a_cell_goes_on_where_there_is_something_to_go_on_from(tmp_path: Path) -> None:
    folder, cell = SweepFolder(tmp_path / "it's"), Cell("a-seed0", "a", 0)
    start = [sys.executable, "-m", "rlvr.cli", "train", "--from", str(folder.path / "cells" / "a-seed0.yaml")]
    command = train_command(folder, cell)
    assert command[:6] == start
    assert command[6:] == [f"run.dir='{tmp_path}/it\\'s'", "run.resume=auto"]
    run = folder.run("a-seed0").path
    run.mkdir(parents=True)
    assert train_command(folder, cell)[-1] == "run.resume=auto"
    (run / "config.yaml").touch()
    assert train_command(folder, cell)[-1] == "run.overwrite=true", "half a run without a checkpoint is made anew"
    (run / "checkpoints" / "checkpoint-5").mkdir(parents=True)
    (run / "checkpoints" / "checkpoint-5" / "rlvr_state_0.pt").touch()
    assert train_command(folder, cell)[-1] == "run.resume=auto"


def test_cells_share_cores_gpus_and_a_group(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "usable_cores", lambda: 8)
    four = {"CUDA_VISIBLE_DEVICES": "4,5,6,7"}
    assert environment_of("s", 2, 1, four) == {
        "WANDB_RUN_GROUP": "s", "OMP_NUM_THREADS": "4", "CUDA_VISIBLE_DEVICES": "6,7",
    }  # fmt: skip
    assert [environment_of("s", 4, slot, four)["CUDA_VISIBLE_DEVICES"] for slot in range(4)] == ["4", "5", "6", "7"]
    assert [environment_of("s", 8, slot, four)["CUDA_VISIBLE_DEVICES"] for slot in (0, 3, 4, 7)] == ["4", "7", "4", "7"]
    mine = {"OMP_NUM_THREADS": "1", "WANDB_RUN_GROUP": "mine", "CUDA_VISIBLE_DEVICES": ""}
    assert environment_of("s", 2, 0, mine) == {}
    assert environment_of("s", 16, 0, mine | {"OMP_NUM_THREADS": "3"}) == {}


def test_gpus_are_counted_where_nobody_has_named_them(tmp_path: Path) -> None:
    assert visible_gpus({}, tmp_path / "none") == []
    for name in ("0000:01:00.0", "0000:02:00.0"):
        (tmp_path / name).mkdir()
    assert visible_gpus({}, tmp_path) == ["0", "1"]
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": "GPU-a, GPU-b"}, tmp_path) == ["GPU-a", "GPU-b"]
