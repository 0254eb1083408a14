"""What a start may do with its run folder, after a crash or a requeue too: the arguments are read as a rank does."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from rlvr.config.compose import compose, read_config
from rlvr.errors import UserError
from rlvr.launch import ranks
from rlvr.launch.manner import Claim
from rlvr.launch.ranks import Job
from rlvr.launch.slurm import JOB
from rlvr.launch.status import log_file
from rlvr.run_folder import RunFolder

PATH = "/Old Runs/lr=1e-6/checkpoint-8"


@contextmanager
def job_of(place: Path, *settings: str, resume: bool | str = False) -> Iterator[Job]:
    config = compose([f"run.dir={place}", "run.name=x", "launch.processes=2", *settings])
    config.run.resume = resume
    job = Job(config)
    try:
        yield job
    finally:
        job.clean()


def manner(job: Job) -> tuple[bool | str, bool]:
    """What the next start is to do, through the reader that refuses settings that do not go together."""
    run = read_config(job.staging / "config.yaml", ["run.resume=false", "run.overwrite=false", *job._manner()]).run
    return run.resume, run.overwrite


def begin(job: Job) -> None:
    """What the first rank does before it trains: it readies the folder as it was told to."""
    resume, overwrite = manner(job)
    job.folder.prepare(resume in (True, "auto"), overwrite)
    job.folder.config.write_text("run: {}")
    (job.folder.path / "log.txt").write_text("step 1")


def save(folder: RunFolder, step: int) -> None:
    checkpoint = folder.checkpoints / f"checkpoint-{step}"
    checkpoint.mkdir(parents=True)
    (checkpoint / "rlvr_state_0.pt").touch()


@pytest.mark.parametrize(
    ("resume", "before_a_save", "after_one"),
    [
        (False, (False, True), (True, False)),
        ("auto", ("auto", False), ("auto", False)),
        (PATH, (PATH, False), (True, False)),
    ],
)
def test_a_run_that_crashed_is_started_again(
    resume: bool | str, before_a_save: tuple, after_one: tuple, tmp_path: Path
) -> None:
    with job_of(tmp_path, resume=resume) as job:
        for _ in range(3):  # a crash before the first save, again and again
            assert job.newest_step() is None
            begin(job)
            assert manner(job) == before_a_save
        begin(job)
        save(job.folder, 2)
        assert job.newest_step() == 2
        assert manner(job) == after_one
        begin(job)
        assert job.newest_step() == 2, "what was saved stays"


def test_a_run_that_goes_on_does_so_again(tmp_path: Path) -> None:
    save(RunFolder(tmp_path / "x"), 4)
    with job_of(tmp_path, resume=True) as job:
        assert job.newest_step() == 4
        begin(job)
        assert manner(job) == (True, False)


def test_what_was_there_before_the_run_is_not_replaced_and_not_gone_on_from(tmp_path: Path) -> None:
    """A crash before the run has written anything: the folder is still the other run's."""
    other = RunFolder(tmp_path / "x")
    save(other, 8)
    other.config.write_text("run: {steps: 8}")
    for overwrite in (False, True):
        with job_of(tmp_path, f"run.overwrite={overwrite}".lower()) as job:
            assert job.newest_step() is None
            assert manner(job) == (False, overwrite), "as it was asked to, by name or not at all"
    with job_of(tmp_path, resume=PATH) as job, pytest.raises(UserError, match="exists and is not empty"):
        begin(job)
    assert other.newest_checkpoint() is not None


def test_a_folder_with_more_than_the_runs_own_is_not_taken_away(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "notes.txt").write_text("mine")
    with job_of(tmp_path, resume=PATH) as job:
        job.folder.config.write_text("run: {}")  # as a run that goes on from its own checkpoint writes it
        assert manner(job) == (PATH, False)
    assert (tmp_path / "x" / "notes.txt").exists()


def test_the_other_nodes_leave_the_folder_to_the_first(tmp_path: Path) -> None:
    with job_of(tmp_path, resume=PATH) as job:
        begin(job)
        job.node = 1
        assert manner(job) == (PATH, False)
        assert job.folder.config.exists()


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A Slurm job around this process, with an srun that nobody calls."""
    (tmp_path / "srun").touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.delenv("SLURM_RESTART_COUNT", raising=False)
    for name, value in {JOB: "1", "SLURM_JOB_ID": "4711"}.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


@pytest.mark.parametrize(
    ("resume", "again"), [(False, (False, True)), ("auto", ("auto", False)), (PATH, (PATH, False))]
)
def test_a_job_that_was_put_back_knows_what_it_has_made(
    resume: bool | str, again: tuple, tmp_path: Path, slurm: pytest.MonkeyPatch
) -> None:
    with job_of(tmp_path / "runs", "launch=slurm", resume=resume) as job:
        begin(job)
    slurm.setenv("SLURM_RESTART_COUNT", "1")
    with job_of(tmp_path / "runs", "launch=slurm", resume=resume) as job:
        assert manner(job) == again
        begin(job)
        save(job.folder, 2)
    slurm.setenv("SLURM_RESTART_COUNT", "2")
    with job_of(tmp_path / "runs", "launch=slurm", resume=resume) as job:
        assert manner(job) == ("auto" if resume == "auto" else True, False)


def test_a_job_that_was_put_back_before_it_began_does_not_replace_another_run(
    tmp_path: Path, slurm: pytest.MonkeyPatch
) -> None:
    other = RunFolder(tmp_path / "runs" / "x")
    other.path.mkdir(parents=True)
    other.config.write_text("run: {}")
    for restarts in range(2):
        slurm.setenv("SLURM_RESTART_COUNT", str(restarts))
        with job_of(tmp_path / "runs", "launch=slurm") as job:
            assert manner(job) == (False, False)


def test_a_full_disk_before_the_start_is_said_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(ranks, "write_config", full)
    with pytest.raises(UserError, match=r"\.launch-x-.* cannot be made \(No space left on device\)"), job_of(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_logs_that_no_disk_takes_stay_where_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with job_of(tmp_path) as job:
        begin(job)
        log_file(job.staging, 1).write_text("Traceback")
        monkeypatch.setattr(ranks.shutil, "move", full)
        job._keep_logs(job.staging, 0)
    assert log_file(job.staging, 1).read_text() == "Traceback"
    assert f"(No space left on device); what the ranks printed stays in {job.staging}" in capsys.readouterr().err


def test_a_claim_is_of_what_was_written_since(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "x")
    assert not Claim(folder).begun
    folder.path.mkdir()
    claim = Claim(folder)
    assert not claim.begun
    folder.config.write_text("run: {}")
    assert (claim.begun, claim.alone) == (True, True)
    later = Claim(folder)
    assert not later.begun
    folder.config.unlink()
    folder.config.write_text("run: {}")
    assert (later.begun, later.alone) == (True, False)
