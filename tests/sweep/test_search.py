"""A search on a function that one can see: it is resumed to the same trials, and finds the better half."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from rlvr.errors import UserError
from rlvr.sweep.folder import SweepFolder
from rlvr.sweep.grammar import read_settings
from rlvr.sweep.plan import Arm, Cell, Plan, read_plan
from rlvr.sweep.results import read_sweep
from rlvr.sweep.running import Failure, Outcome
from rlvr.sweep.search import run_search, search_plan

optuna = pytest.importorskip("optuna")

SPACE = [
    "optimizer.learning_rate=tag(log,interval(1e-4,1e-2))",
    "selection.keep=0.1,0.2",
    "run.steps=2",
    "run.seed=0,1",
]


class Runner:
    """Runs cells in no time: accuracy falls with the distance of the learning rate from 1e-3.

    Args:
        folder: of the sweep.
        stop_after: calls after which a signal is said to have come.
        broken: a cell that fails.
    """

    def __init__(self, folder: SweepFolder, stop_after: int = 99, broken: str = "") -> None:
        self.folder, self.left, self.broken, self.ran = folder, stop_after, broken, []

    def __call__(self, cells: list[Cell]) -> Outcome:
        self.left -= 1
        for cell in cells:
            if self.folder.summary(cell.name) is not None:
                continue
            if cell.name == self.broken:
                return Outcome([Failure(cell.name, 1, Path("log"))])
            if self.left < 0:
                return Outcome([], 15)
            self.ran.append(cell.name)
            arm = next(arm for arm in read_plan(self.folder.plan).arms if arm.name == cell.arm)
            rate = float(arm.overrides[0].split("=")[1])
            run = self.folder.run(cell.name).path
            run.mkdir()
            value = 1 - abs(rate - 1e-3) * 50
            (run / "summary.json").write_text(json.dumps({"accuracy_after": value, "train_seconds": 1, "code": "a"}))
        return Outcome()


@pytest.fixture(autouse=True)
def no_composition(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cells are not run, and a composition takes a fifth of a second: their configurations say what the table reads."""
    text = "selection: {name: top_entropy, keep: 0.2}"
    monkeypatch.setattr("rlvr.sweep.folder._resolved", lambda *_: None)
    monkeypatch.setattr("rlvr.sweep.folder._write_cell", lambda folder, name, _: folder.config(name).write_text(text))


@pytest.fixture
def plan() -> Plan:
    return search_plan("s", read_settings(SPACE, ("ablation", "run.dir")))


def made(tmp_path: Path, name: str) -> SweepFolder:
    folder = SweepFolder(tmp_path / name / "s")
    (folder.path / "cells").mkdir(parents=True)
    return folder


def test_the_plan_says_what_is_searched(plan: Plan) -> None:
    assert plan.space == ["optimizer.learning_rate=tag(log,interval(0.0001,0.01))", "selection.keep=0.1,0.2"]
    assert (plan.settings, plan.seeds, plan.arms) == (["run.steps=2"], [0, 1], [])
    found = search_plan(None, read_settings(["a.b=int(interval(2,8))", "c=choice(x)"]))
    assert (found.name, found.space) == ("search-b-c", ["a.b=int(interval(2,8))", "c=choice(x)"])
    assert read_settings(found.space) == read_settings(["a.b=int(interval(2,8))", "c=choice(x)"])
    with pytest.raises(UserError, match="--search has nothing to choose"):
        search_plan(None, read_settings(["a=1"]))
    with pytest.raises(UserError, match="an ablation has named arms and is not searched"):
        search_plan(None, read_settings(["ablation=x", "a=1,2"], ("ablation",)))


def test_trials_are_arms_and_the_best_comes_first(plan: Plan, tmp_path: Path) -> None:
    folder = made(tmp_path, "a")
    found, outcome = run_search(plan, folder, 12, 2, Runner(folder))
    assert (outcome.failures, outcome.stopped) == ([], None)
    assert [arm.name for arm in found.arms] == [f"trial_{index:03d}" for index in range(12)]
    assert read_plan(folder.plan) == found
    rates = [float(arm.overrides[0].removeprefix("optimizer.learning_rate=")) for arm in found.arms]
    assert all(1e-4 <= rate <= 1e-2 for rate in rates)
    assert {arm.overrides[1] for arm in found.arms} == {"selection.keep=0.1", "selection.keep=0.2"}
    result = read_sweep(folder.path)
    values = [row.numbers["accuracy_after"].mean for row in result.arms]
    assert values == sorted(values, reverse=True)
    assert "chosen by what it is measured by" in result.remarks[0]


def test_a_stopped_search_goes_on_to_the_same_trials(plan: Plan, tmp_path: Path) -> None:
    whole, half = made(tmp_path, "whole"), made(tmp_path, "half")
    expected, _ = run_search(plan, whole, 15, 2, Runner(whole))
    for stop in (1, 3, 5):
        _, outcome = run_search(plan, half, 15, 2, Runner(half, stop_after=stop))
        assert outcome.stopped == 15
    again = Runner(half)
    found, _ = run_search(plan, half, 15, 2, again)
    assert found == expected
    assert len(again.ran) < 30
    more, _ = run_search(plan, half, 17, 2, again)
    assert more.arms[:15] == expected.arms
    assert len(more.arms) == 17


def test_a_trial_that_fails_is_run_again_and_stops_no_other(plan: Plan, tmp_path: Path) -> None:
    folder = made(tmp_path, "a")
    found, outcome = run_search(plan, folder, 4, 1, Runner(folder, broken="trial_001-seed0"))
    assert [one.cell for one in outcome.failures] == ["trial_001-seed0"]
    assert len(found.arms) == 4
    again = Runner(folder)
    found, outcome = run_search(plan, folder, 4, 1, again)
    assert again.ran == ["trial_001-seed0", "trial_001-seed1"]
    assert outcome.failures == []


def test_a_trial_that_a_kill_left_without_values_is_no_trial(plan: Plan, tmp_path: Path) -> None:
    whole, half = made(tmp_path, "whole"), made(tmp_path, "half")
    expected, _ = run_search(plan, whole, 4, 1, Runner(whole))
    run_search(plan, half, 2, 1, Runner(half))
    from rlvr.sweep.search import _study

    _study(half, "s").ask()
    assert run_search(plan, half, 4, 1, Runner(half))[0] == expected


def test_a_search_that_measures_nothing_is_refused(plan: Plan, tmp_path: Path) -> None:
    folder = made(tmp_path, "a")

    def run(cells: list[Cell]) -> Outcome:
        for cell in cells:
            folder.run(cell.name).path.mkdir()
            folder.run(cell.name).summary.write_text('{"accuracy_after": null}')
        return Outcome()

    with pytest.raises(UserError, match="trial_000-seed0 has no accuracy_after: nothing is held out"):
        run_search(plan, folder, 1, 1, run)


def test_arms_of_another_space_are_another_sweep(plan: Plan, tmp_path: Path) -> None:
    from rlvr.sweep.folder import check_sweep

    folder = made(tmp_path, "a")
    run_search(plan, folder, 1, 1, Runner(folder))
    check_sweep(plan, tmp_path / "a")
    with pytest.raises(UserError, match=r"is another sweep: space="):
        check_sweep(replace(plan, space=["selection.keep=0.1,0.3"]), tmp_path / "a")
    assert Arm("x", []).baseline is None
