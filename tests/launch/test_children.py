"""Ranks as processes: watched, signalled, ended; small scripts stand in for training."""

import argparse
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from rlvr.launch.children import Signals, Watch, run_once
from rlvr.launch.ranks import _free_port
from rlvr.launch.status import CRASHED, DONE, INTERRUPTED, PREEMPTED, REFUSED, STATUS_DIR, ends, log_file, pids
from rlvr.launch.supervisor import TERMINATED, Outcome
from tests.source import ROOT

STARTER = """
import os, subprocess, sys
ranks = [
    subprocess.Popen([sys.executable, "rank.py"], env={**os.environ, "RANK": str(rank)}, start_new_session=True)
    for rank in range(2)
]
sys.exit(1 if any([rank.wait() for rank in ranks]) else 0)
"""
"""Like torch's launcher: ranks in sessions of their own, and 1 for whatever they say."""

SRUN = ROOT / "tests" / "launch" / "fake_srun.py"

RANK = """
import errno, os, signal, sys, time
os.environ.setdefault("RANK", os.environ.get("SLURM_PROCID", ""))
from rlvr.errors import UserError
from rlvr.launch import status
from rlvr.launch.status import Disagreement, reporting
rank = int(os.environ["RANK"])
def train():
{body}
with reporting():
    train()
"""

PREEMPTIBLE = """
    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, lambda *_: sys.exit(75))
    open(f"ready{rank}", "w").close()
    time.sleep(60)
"""


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Run two ranks with the given body, by srun or else; the outcome, and where their status is."""
    for name in [name for name in os.environ if name.startswith(("SLURM_", "RANK"))]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    status = tmp_path / "status"
    status.mkdir()
    (tmp_path / "starter.py").write_text(STARTER)

    def run(body: str, signals: Signals | None = None, srun: bool = False) -> tuple[Outcome, Path]:
        (tmp_path / "rank.py").write_text(RANK.format(body=textwrap.indent(textwrap.dedent(body), "    ")))
        environment = {**os.environ, "PYTHONPATH": str(ROOT), STATUS_DIR: str(status)}
        starter = [str(SRUN), "--ntasks=2", sys.executable, "rank.py"] if srun else ["starter.py"]
        command = [sys.executable, *starter]
        return run_once(command, environment, status, range(2), signals or Signals(), through_starter=srun), status

    return run


@contextmanager
def signalled(number: int, place: Path, times: int = 1) -> Iterator[Signals]:
    """A signal comes once both ranks are ready."""
    signals = Signals()

    def send() -> None:
        while not all((place / f"ready{rank}").exists() for rank in range(2)):
            time.sleep(0.05)
        for _ in range(times):
            os.kill(os.getpid(), number)
            time.sleep(0.3)

    with signals.caught():
        thread = threading.Thread(target=send)
        thread.start()
        yield signals
        thread.join()


def test_ranks_that_end_well(start) -> None:
    ended, status = start("print('hello from', rank)")
    assert ended == Outcome(DONE)
    assert {rank: end.code for rank, end in ends(status).items()} == {0: DONE, 1: DONE}
    assert pids(status) == set()
    assert not log_file(status, 0).exists()
    assert log_file(status, 1).read_text() == "hello from 1\n"


def test_what_one_rank_refuses_is_the_message_of_all(start, capfd: pytest.CaptureFixture[str]) -> None:
    ended, _ = start("if rank == 1: raise UserError('no such data')")
    assert ended == Outcome(REFUSED, "no such data")
    assert capfd.readouterr().err == ""


def test_an_error_that_all_found_is_said_once(start, capfd: pytest.CaptureFixture[str]) -> None:
    ended, _ = start("raise Disagreement('rank 1 is odd')")
    assert ended == Outcome(REFUSED, "rank 1 is odd")
    assert capfd.readouterr().err == ""


def test_a_crash_leaves_its_traceback_in_the_ranks_log(start) -> None:
    ended, status = start("assert rank == 0, 'broken'")
    assert ended == Outcome(CRASHED, failed=(1,))
    assert "AssertionError: broken" in log_file(status, 1).read_text()


def test_ranks_that_wait_for_one_that_failed_are_ended(start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Watch.wait, "__defaults__", (0.5,))
    began = time.monotonic()
    ended, _ = start("if rank == 0: time.sleep(60)\nsys.exit(1)")
    assert ended == Outcome(CRASHED, failed=(0, 1))
    assert time.monotonic() - began < 30


def test_sigterm_goes_to_every_rank_and_75_comes_back(start, tmp_path: Path) -> None:
    with signalled(signal.SIGTERM, tmp_path) as signals:
        ended, _ = start(PREEMPTIBLE, signals)
    assert ended == Outcome(PREEMPTED)


def test_srun_forwards_what_asks_its_ranks_to_save(start, tmp_path: Path) -> None:
    with signalled(signal.SIGTERM, tmp_path) as signals:
        ended, status = start(PREEMPTIBLE, signals, srun=True)
    assert ended == Outcome(PREEMPTED)
    assert {end.code for end in ends(status).values()} == {PREEMPTED}


def test_an_interrupt_ends_what_srun_has_started(
    start, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Watch.wait, "__defaults__", (60.0,))
    began = time.monotonic()
    with signalled(signal.SIGINT, tmp_path) as signals:
        ended, _ = start("open(f'ready{rank}', 'w').close()\ntime.sleep(60)", signals, srun=True)
    assert ended.code == INTERRUPTED
    assert capfd.readouterr().err == "srun: forcing job termination\n", "one SIGINT to srun only reports"
    assert time.monotonic() - began < 50


def test_srun_is_told_once_every_task_can_take_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "kill", lambda pid, number: sent.append((pid, number)))
    process = argparse.Namespace(pid=7)
    watch = Watch(process, tmp_path, range(2), through_starter=True)  # type: ignore[arg-type]
    for rank in range(2):
        watch.tell(signal.SIGTERM)
        assert sent == []
        (tmp_path / f"{rank}.pid").touch()
    for _ in range(2):
        watch.tell(signal.SIGTERM)
    assert sent == [(7, signal.SIGUSR1)]


FULL = """
    def full(*_): raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    status._write = full
"""


def test_a_message_that_no_disk_takes_is_said_on_the_terminal(start, capfd: pytest.CaptureFixture[str]) -> None:
    body = textwrap.dedent(FULL) + "if rank == 1: raise UserError('no room for step 4')"
    ended, _ = start(body)
    assert (ended.code, ended.failed) == (CRASHED, (0, 1))
    assert capfd.readouterr().err == "rlvr: no room for step 4\n"


@pytest.mark.parametrize(("rank", "log"), [("0", False), ("1", True)])
def test_the_exit_code_of_a_rank_outlives_a_full_disk(rank: str, log: bool, tmp_path: Path) -> None:
    body = textwrap.indent(textwrap.dedent(FULL) + "raise UserError('no room for step 4')", "    ")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), STATUS_DIR: str(tmp_path), "RANK": rank}
    done = subprocess.run(
        [sys.executable, "-c", RANK.format(body=body)], env=environment, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (REFUSED, "rlvr: no room for step 4\n")
    assert log_file(tmp_path, 1).exists() is log


def test_a_rank_that_cannot_write_its_first_file_is_refused(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), STATUS_DIR: str(tmp_path / "none"), "RANK": "0"}
    done = subprocess.run(
        [sys.executable, "-c", RANK.format(body="    pass")], env=environment, capture_output=True, text=True
    )
    assert done.returncode == REFUSED
    assert done.stderr.startswith(f"rlvr: rank 0 cannot write to {tmp_path / 'none'} (No such file or directory)")


@pytest.mark.slow
@pytest.mark.parametrize("code", [REFUSED, CRASHED])
def test_torchs_launcher_tells_a_refusal_from_a_crash(code: int, tmp_path: Path) -> None:
    (tmp_path / "rank.py").write_text(f"import os, sys; sys.exit({code} if os.environ['RANK'] == '1' else 0)")
    plan = {
        "name": "x", "nodes": 1, "node_rank": 0, "processes": 2, "timeout_seconds": 60, "address": "127.0.0.1",
        "port": _free_port(), "command": [str(tmp_path / "rank.py")],
    }  # fmt: skip
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-m", "rlvr.launch.elastic", str(tmp_path / "plan.json")], env=environment,
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == code, done.stderr


def test_ranks_that_do_not_know_sigterm_die_of_it(start, tmp_path: Path) -> None:
    with signalled(signal.SIGTERM, tmp_path) as signals:
        ended, _ = start("open(f'ready{rank}', 'w').close()\ntime.sleep(60)", signals)
    assert ended.code == TERMINATED


def test_an_interrupt_ends_ranks_as_a_person_would(start, tmp_path: Path) -> None:
    with signalled(signal.SIGINT, tmp_path) as signals:
        ended, status = start("open(f'ready{rank}', 'w').close()\ntime.sleep(60)", signals)
    assert ended.code == INTERRUPTED
    assert {end.code for end in ends(status).values()} == {INTERRUPTED}


def test_a_second_interrupt_waits_for_nobody(start, tmp_path: Path) -> None:
    deaf = "signal.signal(signal.SIGINT, signal.SIG_IGN)\nopen(f'ready{rank}', 'w').close()\ntime.sleep(60)"
    began = time.monotonic()
    with signalled(signal.SIGINT, tmp_path, times=2) as signals:
        ended, _ = start(deaf, signals)
    assert ended.code == INTERRUPTED
    assert time.monotonic() - began < 9, "the grace of a first interrupt is ten seconds"


def test_a_rank_ends_with_the_launcher_that_started_it(tmp_path: Path) -> None:
    script = "import time; from rlvr.launch.status import reporting\nwith reporting(): time.sleep(60)"
    launcher = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {script!r}])"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), STATUS_DIR: str(tmp_path), "RLVR_LAUNCHER": "1"}
    parent = subprocess.Popen([sys.executable, "-c", launcher], env=environment)
    deadline = time.monotonic() + 30
    while not (tmp_path / "0.pid").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    rank = json.loads((tmp_path / "0.pid").read_text())["pid"]
    parent.kill()
    parent.wait()
    while Path(f"/proc/{rank}/stat").exists() and time.monotonic() < deadline:
        if Path(f"/proc/{rank}/stat").read_text().split()[2] == "Z":
            break
        time.sleep(0.1)
    assert time.monotonic() < deadline, "the rank outlived its launcher"
