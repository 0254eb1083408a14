"""Cells as a Slurm array: scripts that stand in for Slurm's commands record what they are asked."""

import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rlvr.errors import UserError
from rlvr.sweep import slurm
from rlvr.sweep.folder import SweepFolder
from rlvr.sweep.slurm import CellJob, minutes, submit_cells
from tests.source import ROOT
from tests.sweep.fakes import keep_plan, runner, written

pytest.importorskip("submitit")

SITE = """
partition: long
account: maths
time: "1:30:00"
gpus: --gres=gpu:h100:{processes}
sbatch: [--exclusive, --mem=0]
setup: [module load cuda]
"""


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on PATH with Slurm's commands."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    add(folder, "sbatch", f'cat "$1" > {tmp_path}/script; echo "Submitted batch job 4711"')
    add(folder, "srun", "exit 1")
    (tmp_path / "site.yaml").write_text(SITE)
    return folder


def add(folder: Path, name: str, body: str) -> None:
    (folder / name).write_text(f"#!/bin/bash\n{body}\n")
    (folder / name).chmod(0o755)


@pytest.fixture
def folder(tmp_path: Path) -> SweepFolder:
    return written(keep_plan(), tmp_path)


def submit(folder: SweepFolder, site: str = "site.yaml") -> str:
    return submit_cells(folder, keep_plan().cells, "fake", Path(site), 8, 4)


def test_an_array_has_an_element_for_each_cell_that_is_not_finished(
    commands: Path, folder: SweepFolder, tmp_path: Path
) -> None:
    runner(folder).run(keep_plan().cells[:2])
    assert submit(folder) == "4711"
    script = (tmp_path / "script").read_text()
    options = {line.removeprefix("#SBATCH ") for line in script.splitlines() if line.startswith("#SBATCH")}
    assert {
        "--array=0-3%4", "--partition=long", "--account=maths", "--time=90", "--gres=gpu:h100:8", "--exclusive",
        "--mem=0", "--job-name=fake", "--nodes=1", "--ntasks-per-node=1", "--signal=USR1@120",
    } <= options  # fmt: skip
    assert "module load cuda\nexport SUBMITIT_PREEMPT_SIGNAL=USR1\n" in script
    assert "-m submitit.core._submit" in script
    left = [cell.name for cell in keep_plan().cells[2:]]
    pickles = [folder.path / "slurm" / f"4711_{index}" / f"4711_{index}_submitted.pkl" for index in range(4)]
    jobs = [pickle.loads(path.read_bytes()).function for path in pickles]
    assert [(job.cell.name, job.folder, job.group) for job in jobs] == [(name, folder.path, "fake") for name in left]


def test_nothing_left_is_no_job(commands: Path, folder: SweepFolder, tmp_path: Path) -> None:
    runner(folder).run(keep_plan().cells)
    assert submit(folder) == ""
    assert not (tmp_path / "script").exists()


def test_what_is_missing_is_said(
    commands: Path, folder: SweepFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "short.yaml").write_text("partition: long")
    with pytest.raises(UserError, match=r"short.yaml sets no time, and an array needs one"):
        submit(folder, "short.yaml")
    add(commands, "sbatch", "echo 'sbatch: error: invalid partition' >&2; exit 1")
    with pytest.raises(UserError, match=r"sbatch refuses the array: .*invalid partition"):
        submit(folder)
    (commands / "srun").unlink()
    monkeypatch.setenv("PATH", str(commands))
    with pytest.raises(UserError, match=r"srun is not on PATH; submit from a login node"):
        submit(folder)
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(UserError, match=r"--slurm needs the package submitit; install it: pip install submitit"):
        submit(folder)


ELEMENT = """
import sys
from pathlib import Path
from rlvr.sweep import running
from tests.sweep.fakes import fake_command
running.train_command = fake_command
from submitit.core.submission import submitit_main
sys.argv = ["submitit", sys.argv[1]]
submitit_main()
"""


def element(folder: SweepFolder, index: int, seconds: float) -> subprocess.Popen:
    """An element of the array, as srun would start it."""
    of_slurm = {
        "JOB_ID": 4712 + index, "ARRAY_JOB_ID": 4711, "ARRAY_TASK_ID": index, "NTASKS": 1, "PROCID": 0, "LOCALID": 0,
        "NODEID": 0, "JOB_NUM_NODES": 1,
    }  # fmt: skip
    environment = {**os.environ, **{f"SLURM_{name}": str(value) for name, value in of_slurm.items()}}
    environment |= {slurm.SIGNAL: "USR1", "SUBMITIT_EXECUTOR": "slurm"}
    environment |= {"FAKE_SECONDS": str(seconds), "PYTHONPATH": str(ROOT)}
    place = str(folder.path.absolute() / "slurm" / "%j")
    return subprocess.Popen([sys.executable, "-c", ELEMENT, place], env=environment, cwd=ROOT)


@pytest.mark.slow
def test_elements_run_their_cells_and_go_back_into_the_queue_when_they_are_to_end(
    commands: Path, folder: SweepFolder, tmp_path: Path
) -> None:
    add(commands, "scontrol", f'echo "$@" >> {tmp_path}/requeued')
    assert submit(folder) == "4711"
    first, second = keep_plan().cells[:2]
    assert element(folder, 0, 0).wait(60) == 0
    assert folder.summary(first.name) is not None
    process = element(folder, 1, 60)
    deadline = time.monotonic() + 60
    while not (folder.path / second.name / "metrics.jsonl").exists() and not folder.log(second.name).exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(0.5)
    process.send_signal(signal.SIGUSR1)
    process.wait(60)
    assert folder.summary(second.name) is None
    assert (tmp_path / "requeued").read_text() == "requeue 4711_1\n"
    assert element(folder, 1, 0).wait(60) == 0
    assert folder.summary(second.name) is not None


def test_an_element_whose_cell_fails_fails(folder: SweepFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.sweep.fakes import fake_command

    monkeypatch.setattr("rlvr.sweep.running.train_command", fake_command)
    cell = keep_plan().cells[0]
    (folder.path / f"broken-{cell.name}").touch()
    with pytest.raises(RuntimeError, match=rf"{cell.name}: exit code 3, see"):
        CellJob(folder.path, cell, "fake")()
    (folder.path / f"broken-{cell.name}").unlink()
    assert CellJob(folder.path, cell, "fake")() == cell.name


@pytest.mark.parametrize(
    ("text", "expected"),
    [("90", 90), ("90:00", 90), ("1:30:00", 90), ("1:30:01", 91), ("2-12", 3600), ("2-12:30", 3630), ("0-0:0:30", 1)],
)
def test_limits_are_minutes(text: str, expected: int) -> None:
    assert minutes(text) == expected


def test_a_limit_that_is_none() -> None:
    with pytest.raises(UserError, match=r"time is 'soon'; expected minutes, HH:MM:SS or DAYS-HH:MM:SS"):
        minutes("soon")
