"""`rlvr sweep` as it is typed: what it plans, refuses, writes and says."""

import signal
from pathlib import Path

import pytest

from rlvr.cli import main
from rlvr.config.compose import read_config
from rlvr.launch.status import PREEMPTED
from rlvr.sweep import running
from rlvr.sweep.folder import SweepFolder
from rlvr.sweep.plan import read_plan
from tests.sweep.fakes import fake_command, starts

SMALL = ["selection.keep=0.2,1.0", "run.seed=1", "run.steps=2"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A place to sweep in, with cells that train nothing."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(running, "train_command", fake_command)
    return tmp_path


def test_a_sweep_from_its_command_to_its_table(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sweep", *SMALL, "--name", "x"]) == 0
    said = capsys.readouterr().out
    assert "runs/x: 2 cells, 0 of them finished" in said
    assert "runs/x/sweep_report.html\nruns/x/table.md\nruns/x/table.csv\n" in said
    assert "keep_0.2" in said
    config = read_config(here / "runs/x/cells/keep_1.0-seed1.yaml")
    assert (config.selection.keep, config.run.seed, config.run.steps) == (1.0, 1, 2)
    assert (config.run.dir, config.run.name) == ("runs/x", "keep_1.0-seed1")
    assert [arm.baseline for arm in read_plan(here / "runs/x/sweep.yaml").arms] == ["keep_1.0", "keep_1.0"]
    # The same command again runs nothing, and neither does --from.
    assert main(["sweep", *SMALL, "--name", "x"]) == 0
    assert main(["sweep", "--from", "runs/x"]) == 0
    assert len(starts(SweepFolder(here / "runs/x"))) == 2
    # The report is made from the runs alone.
    table = (here / "runs/x/table.csv").read_text()
    for name in ("sweep_report.html", "table.md", "table.csv"):
        (here / "runs/x" / name).unlink()
    assert main(["report", "runs/x"]) == 0
    assert (here / "runs/x/table.csv").read_text() == table


def test_another_plan_under_the_same_name_is_refused(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sweep", *SMALL, "--name", "x", "--workers", "2"]) == 0
    for other, said in {
        ("selection.keep=0.2,1.0", "run.seed=1", "run.steps=3"): "settings=['run.steps=3'] (was ['run.steps=2'])",
        ("selection.keep=0.2,1.0", "run.seed=1,2", "run.steps=2"): "seeds=[1, 2] (was [1])",
        ("selection.keep=0.1,1.0", "run.seed=1", "run.steps=2"): "arms.keep_0.2.overrides=None (was ['sel",
    }.items():
        assert main(["sweep", *other, "--name", "x"]) == 2
        error = capsys.readouterr().err
        assert "runs/x is another sweep" in error
        assert said in error
        assert "go on with that one: rlvr sweep --from runs/x" in error
    assert len(starts(SweepFolder(here / "runs/x"))) == 2


@pytest.mark.slow
def test_a_default_that_has_changed_since_is_refused(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sweep", *SMALL, "--name", "x"]) == 0
    cell = here / "runs/x/cells/keep_0.2-seed1.yaml"
    cell.write_text(cell.read_text().replace("learning_rate: 0.0004", "learning_rate: 0.0001"))
    assert main(["sweep", *SMALL, "--name", "x"]) == 2
    expected = "cells/keep_0.2-seed1.yaml: optimizer.learning_rate=0.0004 (was 0.0001)"
    assert expected in capsys.readouterr().err


def test_a_failed_cell_gives_exit_code_1_and_its_log(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "runs/x/cells").mkdir(parents=True)  # as a kill before the plan was written leaves it
    assert main(["sweep", *SMALL, "--name", "x", "--dry-run"]) == 0
    (here / "runs/x").rename(here / "old")
    assert main(["sweep", *SMALL, "--name", "x", "--dry-run"]) == 0
    assert not (here / "runs/x").exists()
    assert main(["sweep", *SMALL, "--name", "y"]) == 0
    folder = SweepFolder(here / "runs/y")
    folder.run("keep_0.2-seed1").summary.unlink()
    (folder.path / "broken-keep_0.2-seed1").touch()
    assert main(["sweep", "--from", "runs/y"]) == 1
    said = capsys.readouterr().out
    assert "1 of 2 cells failed:\n  keep_0.2-seed1: exit code 3, see runs/y/logs/keep_0.2-seed1.txt\n" in said
    assert "rlvr sweep --from runs/y" in said
    assert "1 of 2 cells are not finished: keep_0.2-seed1." in (here / "runs/y/table.md").read_text()


def test_a_dry_run_prints_the_cells_and_what_is_known_of_the_cost(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sweep", *SMALL, "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "sweep-keep: 2 arms, 1 seeds, 2 cells in runs/sweep-keep" in said
    assert "  keep_1.0 (baseline): selection.keep=1.0" in said
    assert "cost: not known before a cell is finished" in said
    assert not (here / "runs").exists()
    assert main(["sweep", *SMALL]) == 0
    SweepFolder(here / "runs/sweep-keep").run("keep_0.2-seed1").summary.unlink()
    capsys.readouterr()
    assert main(["sweep", "--from", "runs/sweep-keep", "--dry-run"]) == 0
    assert (
        "cost: 1 cells are finished and trained for 2 s each; the other 1 take about 0 min" in capsys.readouterr().out
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["selection.keep=0.2,1.0", "run.stepz=3"], "run.stepz is not a field of RunSection; did you mean steps?"),
        (["selection.keep=0.2,7"], "keep"),
        (["algorithm=grpo,dapoo"], "algorithm=dapoo is unknown; did you mean dapo?"),
        (["ablation=entropy"], "ablation=entropy is unknown"),
        (["selection.keep=0.2,1.0", "launch=slurm"], "a cell is a run on one machine"),
        (["selection.keep=0.2,1.0", "--workers", "0"], "--workers is 0"),
        (["selection.keep=0.2,1.0", "--name", "a/b"], "--name is 'a/b'; expected the name of a folder"),
        (["selection.keep=1,1.0"], "arms keep_1 and keep_1.0 are the same run"),
        (["--from", "nowhere"], "nowhere has no sweep.yaml, so it is no sweep"),
        (["--from", "nowhere", "run.steps=3"], "--from goes on with a sweep as it was planned"),
        (["--search", "3", "--slurm", "a=1,2"], "--search and --slurm cannot be combined"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_written(
    arguments: list[str], said: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sweep", *arguments]) == 2
    assert said in capsys.readouterr().err
    assert not (here / "runs").exists()


def test_a_search_ends_in_the_command_that_confirms_it(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["sweep", "--search", "1", "selection.keep=0.2,0.5", "run.steps=2", "run.seed=0", "--name", "s"]
    assert main(command) == 0
    said = capsys.readouterr().out
    again = said.split("best: trial_000; run it with seeds that the search has not seen: ")[1].strip()
    keep = read_config(here / "runs/s/cells/trial_000-seed0.yaml").selection.keep
    assert again == f"rlvr sweep run.steps=2 selection.keep={keep} run.seed=1,2,3,4,5 --name trial_000"
    assert main([*again.split()[1:], "--dry-run"]) == 0
    assert main(["sweep", "--from", "runs/s"]) == 0
    assert len(starts(SweepFolder(here / "runs/s"))) == 1
    assert main([*command[:2], "2", *command[3:]]) == 0
    assert starts(SweepFolder(here / "runs/s")) == ["trial_000-seed0", "trial_001-seed0"]


def test_the_command_that_a_stopped_search_prints_makes_all_its_trials(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    space = ["selection.keep=0.2,0.5", "run.steps=2", "run.seed=0"]
    assert main(["sweep", "--search", "3", "--workers", "2", *space, "--name", "whole"]) == 0
    monkeypatch.setattr(running.LocalRunner, "run", lambda *_: running.Outcome([], signal.SIGTERM))
    assert main(["sweep", "--search", "3", "--workers", "2", *space, "--name", "s"]) == PREEMPTED
    monkeypatch.undo()
    monkeypatch.chdir(here)
    monkeypatch.setattr(running, "train_command", fake_command)
    command = capsys.readouterr().out.rsplit("go on: rlvr ", 1)[1].split()
    assert command == ["sweep", "--from", "runs/s"]
    assert main(command) == 0
    found, whole = (read_plan(here / "runs" / name / "sweep.yaml") for name in ("s", "whole"))
    assert (found.trials, found.workers, len(found.arms)) == (3, 2, 3)
    assert found.arms == whole.arms
    # More trials than were planned, and from the settings: both at a time as before.
    assert main([*command, "--search", "4"]) == 0
    assert main(["sweep", "--search", "5", *space, "--name", "s"]) == 0
    found = read_plan(here / "runs/s/sweep.yaml")
    assert (found.trials, found.workers, len(found.arms)) == (5, 2, 5)
    # The folder of a package that did not keep the number.
    text = (here / "runs/s/sweep.yaml").read_text()
    (here / "runs/s/sweep.yaml").write_text(text.replace("trials: 5\n", "").replace("workers: 2\n", ""))
    assert main(command) == 2
    assert "runs/s does not say how many trials it shall have; give --search N" in capsys.readouterr().err


def test_a_search_is_not_made_of_a_sweep(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sweep", *SMALL, "--name", "x"]) == 0
    assert main(["sweep", "--from", "runs/x", "--search", "3"]) == 2
    assert "runs/x is a sweep, which has no trials; leave out --search" in capsys.readouterr().err


def test_a_folder_that_is_no_sweep_is_left_alone(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "runs/x").mkdir(parents=True)
    (here / "runs/x/config.yaml").write_text("run: {}")
    assert main(["sweep", *SMALL, "--name", "x"]) == 2
    assert "runs/x exists and is no sweep; choose another --name" in capsys.readouterr().err


@pytest.mark.slow
def test_a_sweep_goes_on_where_it_was_moved_to(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sweep", *SMALL, "run.dir=a", "--name", "x"]) == 0
    (here / "b").mkdir()
    (here / "a/x").rename(here / "b/x")
    SweepFolder(here / "b/x").run("keep_0.2-seed1").summary.unlink()
    assert main(["sweep", "--from", "b/x"]) == 0
    assert SweepFolder(here / "b/x").summary("keep_0.2-seed1") is not None
    (here / "b/x").rename(here / "b/y")
    assert main(["sweep", "--from", "b/y"]) == 2
    assert "b/y holds the sweep x; give the folder that name again" in capsys.readouterr().err
