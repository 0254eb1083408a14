"""SIGKILL wherever it hurts: the run that goes on is the run that was never killed, bit for bit.

One case of a class; with RLVR_SOAK=1 every step, every operation on files and random times.
"""

import os
import random
import resource
import shutil
from pathlib import Path
from typing import Any

import pytest

from rlvr.checkpoints.layout import files_in
from rlvr.trainer.saving import Saver
from tests.resume.runs import (
    ENGINES,
    EVERY,
    STEPS,
    Outcome,
    after_seconds,
    at_operation,
    at_step,
    check_whole,
    log,
    operations,
    ranks_of,
    run,
    some,
)

SOAK = os.environ.get("RLVR_SOAK") == "1"
# A soak kills and resumes some 170 times in one test, ten to twenty seconds each under ZeRO.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(14400 if SOAK else 3600)]


@pytest.fixture(scope="module", params=list(ENGINES))
def engine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def whole(engine: str, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """The run that is never killed."""
    folder = tmp_path_factory.mktemp(f"whole_{engine}")
    assert run(engine, folder) == [0] * ranks_of(engine), log(folder)
    return Outcome.of(folder)


def go_on(engine: str, folder: Path, whole: Outcome) -> None:
    """Go on after a kill and compare."""
    assert run(engine, folder, "run.resume=auto") == [0] * ranks_of(engine), log(folder)
    check_equal(Outcome.of(folder), whole)


def check_equal(resumed: Outcome, whole: Outcome) -> None:
    assert resumed.rows == whole.rows
    assert [name for name in whole.files if resumed.files.get(name) != whole.files[name]] == []
    assert resumed == whole


def test_the_comparison_sees_everything_that_shapes_the_future(engine: str, whole: Outcome) -> None:
    kinds = {name.split("/")[-1].split(".")[-1] for name in whole.files}
    assert {"safetensors", "pt", "pth", "json"} <= kinds
    assert len([name for name in whole.files if name.startswith("rlvr_state_")]) == ranks_of(engine)
    assert len([name for name in whole.files if name.startswith("rng_state")]) == ranks_of(engine)
    assert [row["step"] for row in whole.rows] == list(range(1, STEPS + 1))
    assert whole.rows[-1]["epoch"] > 1
    assert any(row["loss"] != 0 for row in whole.rows)


@pytest.mark.parametrize("step", range(1, STEPS + 1) if SOAK else [EVERY + 2, STEPS])
def test_killed_in_a_step(engine: str, whole: Outcome, step: int, tmp_path: Path) -> None:
    """In step 5 the way back leads into the middle of a rollout batch, in step 8, the last, into the second epoch."""
    codes = run(engine, tmp_path, hook=at_step(step, of_rank=step % ranks_of(engine)))
    assert -9 in codes, log(tmp_path)
    assert check_whole(tmp_path) == (step - 1) // EVERY * EVERY
    go_on(engine, tmp_path, whole)


def test_killed_twice_in_the_same_run(engine: str, whole: Outcome, tmp_path: Path) -> None:
    run(engine, tmp_path, hook=at_step(2, "_compute_loss"))
    run(engine, tmp_path, "run.resume=auto", hook=at_step(EVERY + 1, "sample"))
    assert check_whole(tmp_path) == EVERY
    go_on(engine, tmp_path, whole)


def test_killed_at_an_operation_of_a_save(engine: str, whole: Outcome, tmp_path: Path) -> None:
    for rank, count in enumerate(operations(engine, tmp_path / "count")):
        assert count > (3 * 20 if rank == 0 else 3)
        # The first and the last operation, and one between; of other ranks, one in the middle of all.
        for number in some(range(count), 3 if rank == 0 else 1):
            folder = tmp_path / f"{rank}_{number}"
            codes = run(engine, folder, hook=at_operation(number, folder, rank))
            assert -9 in codes, log(folder)
            check_whole(folder)
            go_on(engine, folder, whole)
            checkpoints = folder / "x/checkpoints"
            names = {name.split("/")[0] for name in files_in(checkpoints)}
            assert names == {f"checkpoint-{step}" for step in (3, 6, 8)}, "nothing of the killed save is left"
            shutil.rmtree(folder)  # hundreds of them in a soak


def test_a_full_disk_ends_with_exit_code_2_and_the_last_checkpoint_stays(
    engine: str, whole: Outcome, tmp_path: Path
) -> None:
    run(engine, tmp_path, hook=at_step(EVERY + 2))

    def full(rank: int) -> None:
        look = Saver._check_finite

        def then_full(saver: Saver, *args: Any) -> None:
            look(saver, *args)  # no file above 100 KiB from here on: rows of the log fit, weights do not
            resource.setrlimit(resource.RLIMIT_FSIZE, (100 << 10, resource.RLIM_INFINITY))

        Saver._check_finite = then_full  # type: ignore[method-assign]

    codes = run(engine, tmp_path, "run.resume=auto", hook=full)
    assert 2 in codes
    assert 0 not in codes
    said = [line for line in log(tmp_path).splitlines() if line.startswith("rlvr: ")]
    assert any(line.startswith("rlvr: checkpoint-6 could not be written to ") for line in said), log(tmp_path)
    assert any("checkpoint-3 was not touched" in line for line in said)
    assert check_whole(tmp_path) == EVERY
    go_on(engine, tmp_path, whole)


@pytest.mark.skipif(not SOAK, reason="random times: with RLVR_SOAK=1")
@pytest.mark.parametrize("seed", range(20))
def test_killed_at_random_times(engine: str, whole: Outcome, seed: int, tmp_path: Path) -> None:
    dice, slowest = random.Random(seed), 2.5 if ranks_of(engine) == 1 else 7.0
    for _ in range(3):
        after_seconds(engine, tmp_path, dice.uniform(0.3, slowest))
        check_whole(tmp_path)
    if not (tmp_path / "x/summary.json").exists():
        go_on(engine, tmp_path, whole)
    check_equal(Outcome.of(tmp_path), whole)
