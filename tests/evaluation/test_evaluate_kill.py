"""`rlvr evaluate` as people start it: killed at random moments, on several processes, under the usual launchers."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from rlvr.evaluation.ledger import ROW, Ledger
from tests.evaluation.tiny import BENCHMARKS, ledger_files, ledger_rows, save_model, write_benchmarks
from tests.source import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

KILLS = 10
PROBLEMS = 12
SAMPLES = 8
LONGEST, START = 6.0, 6.0
"""Seconds of drawing, and of starting, before a kill."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model and the seven files."""
    folder = tmp_path_factory.mktemp("kill")
    save_model(folder / "model")
    write_benchmarks(folder / "files", PROBLEMS)
    return folder


def settings(place: Path, ledger: str, *more: str) -> list[str]:
    """The same samples each time."""
    return [
        f"model={place}/model", f"benchmarks=[{','.join(BENCHMARKS)}]", f"benchmarks_dir={place}/files",
        f"limit={PROBLEMS}", f"samples={SAMPLES}", "max_tokens=16", f"ledger={place}/{ledger}", *more,
    ]  # fmt: skip


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}


def run(arguments: Sequence[str], launcher: Sequence[str] = ()) -> str:
    """Run to the end; what was said."""
    command = [*(launcher or [sys.executable]), "-m", "rlvr.cli", "evaluate", *arguments]
    done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def whole(place: Path) -> Path:
    """The ledger of one uninterrupted run."""
    run(settings(place, "whole"))
    return place / "whole"


def killed(arguments: Sequence[str], seconds: float, drawing: bool) -> bool:
    """Start, wait for the first sentence if it is to be drawing, wait some more, kill; whether it was alive then."""
    process = subprocess.Popen(
        [sys.executable, "-m", "rlvr.cli", "evaluate", *arguments], cwd=ROOT, env=environment(),
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip
    assert process.stdout is not None
    if drawing:
        first = process.stdout.readline()
        assert "samples to draw" in first, first + process.stdout.read()
    time.sleep(seconds)
    alive = process.poll() is None
    if alive:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    return alive


def test_killed_ten_times_the_ledger_is_that_of_an_uninterrupted_run(place: Path, whole: Path) -> None:
    seed = random.SystemRandom().randrange(2**32)
    print(f"the seed of the random moments is {seed}")
    moments = random.Random(seed)
    arguments = settings(place, "killed", "batch_size=24")
    kept = [0]
    for kill in range(KILLS):
        drawing = kill not in (2, 7)  # those two while it starts or opens cells
        seconds = moments.uniform(0.0, LONGEST if drawing else START)
        while not killed(arguments, seconds, drawing):
            seconds /= 4  # it was done before
        kept.append(sum(len(cell.samples.read(["sample"])) for cell in Ledger(place / "killed").cells()))
    assert kept == sorted(kept), "a kill lost rows that had been kept"
    print(f"rows after each kill: {kept[1:]}")
    run(arguments)
    expected, found = ledger_rows(whole), ledger_rows(place / "killed")
    assert len(expected) == len(BENCHMARKS)
    assert {len(rows) for rows in expected.values()} == {PROBLEMS * SAMPLES}
    assert all(set(row) == set(ROW) for rows in expected.values() for row in rows)
    assert found == expected
    assert ledger_files(place / "killed") == ledger_files(whole)
    assert "0 samples to draw" in run(arguments)


@pytest.mark.parametrize("more", [["batch_size=9"], ["processes=2", "batch_size=11"]], ids=" ".join)
def test_batch_size_and_processes_change_no_byte(place: Path, whole: Path, more: list[str]) -> None:
    shutil.rmtree(place / "other", ignore_errors=True)
    said = run(settings(place, "other", *more))
    assert ledger_rows(place / "other") == ledger_rows(whole)
    assert ledger_files(place / "other") == ledger_files(whole)
    assert said.count("samples to draw") == len(BENCHMARKS)  # said once for all processes


LAUNCHERS = {
    "torchrun": [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"],
    "accelerate": [
        sys.executable, "-m", "accelerate.commands.launch", "--num_processes", "2", "--cpu", "--num_machines", "1",
        "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0",
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", LAUNCHERS)
def test_workers_of_a_launcher_share_the_samples(place: Path, whole: Path, name: str) -> None:
    arguments = settings(place, name, "benchmarks=[aime24,arithmetic]")
    said = run(arguments, LAUNCHERS[name])
    expected = ledger_rows(whole)
    found = ledger_rows(place / name)
    assert found == {cell: expected[cell] for cell in found}
    assert len(found) == 2
    assert said.count("samples to draw") == 2


def test_processes_inside_a_launcher_are_refused(place: Path) -> None:
    command = [sys.executable, "-m", "rlvr.cli", "evaluate", *settings(place, "refused", "processes=2")]
    done = subprocess.run(
        command, cwd=ROOT, env={**environment(), "WORLD_SIZE": "2", "RANK": "0"}, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "rlvr: processes= inside torchrun or accelerate launch; leave it out: all of them take part\n"
    assert not (place / "refused").exists()


def test_an_error_on_processes_is_one_line_and_ends_them_all(place: Path) -> None:
    command = [sys.executable, "-m", "rlvr.cli", "evaluate", f"model={place}/none", "processes=2"]
    done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert f"rlvr: model={place}/none does not exist" in done.stderr
    assert "Traceback" not in done.stderr


def test_processes_end_with_the_command_that_started_them(place: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "rlvr.cli", "evaluate", *settings(place, "orphans", "processes=2")], cwd=ROOT,
        env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert "samples to draw" in process.stdout.readline()
    process.kill()  # this one alone, without a chance to tell the others
    process.wait()
    process.stdout.close()
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline:
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.2)
    os.killpg(process.pid, signal.SIGKILL)
    pytest.fail("processes of a killed command went on")
