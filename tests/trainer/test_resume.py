"""A run goes on as itself or not at all, and is refused before anything is written."""

import json
from pathlib import Path
from typing import Any

import pytest

from rlvr.checkpoints.layout import checkpoint_name
from rlvr.checkpoints.manifest import verify
from rlvr.checkpoints.staging import commit, staged
from rlvr.config.compose import compose, read_config, write_config
from rlvr.errors import UserError
from rlvr.resume import AUTO, Resume, checkpoint_to_resume, differences, set_aside, shaping
from rlvr.rollouts.record import record_path
from rlvr.run_folder import RunFolder, heldout_history
from rlvr.train import Run
from tests.trainer.test_train import settings, silent

FACTS: dict[str, Any] = {
    "world_size": 2, "engine": "zero2", "data": "d0", "tokenizer": "t0", "code": "c0", "packages": {"torch": "2.0"},
}  # fmt: skip


def save(folder: RunFolder, step: int, config: Any, **facts: Any) -> Path:
    """A small checkpoint of a run."""
    with staged(folder.checkpoints, step) as staging:
        (staging / "model.safetensors").write_bytes(b"weights")
        final = folder.checkpoints / checkpoint_name(step)
        commit(staging, final, {**FACTS, "config": shaping(config), **facts})
    return final


@pytest.fixture
def stopped(tmp_path: Path) -> Path:
    """A run folder that stopped after step 1 of 2."""
    folder, config = RunFolder(tmp_path / "x"), compose(settings(tmp_path))
    save(folder, 1, config)
    write_config(config, folder.config)
    return tmp_path


def found(folder: Path, *more: str, **facts: Any) -> Resume:
    config = compose(settings(folder, "run.resume=true", *more))
    return checkpoint_to_resume(config, RunFolder(folder / "x"), {**FACTS, **facts})


def resumed(folder: Path, *more: str) -> Path | None:
    return found(folder, *more).checkpoint


def test_the_same_run_goes_on_with_more_steps_and_other_logging(stopped: Path) -> None:
    more = ("run.steps=9", "evaluation.every=1", "run.keep_last=0", "run.keep_best=3", "launch.timeout_seconds=99")
    assert resumed(stopped, *more) == stopped / "x/checkpoints/checkpoint-1"


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ("optimizer.learning_rate=1e-2", "optimizer.learning_rate=0.01 (was 0.0004)"),
        ("selection.keep=0.5", "selection.keep=0.5 (was 0.2)"),
        ("reward=dapo", "reward.accuracy.wrong=-1.0 (was 0.0)"),
        ("run.seed=1", "run.seed=1 (was 0)"),
        ("model.path=./other", "model.path=./other (was builtin)"),
        ("algorithm=grpo", "and "),
    ],
)
def test_another_run_is_refused_with_what_differs(stopped: Path, change: str, named: str) -> None:
    with pytest.raises(UserError, match="is not the run of") as refused:
        resumed(stopped, change)
    assert named in str(refused.value)
    assert "--from" in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("allowed", ["[optimizer.learning_rate]", "[optimizer]", "[code,optimizer.learning_rate]"])
def test_a_setting_may_change_where_it_is_named(stopped: Path, allowed: str) -> None:
    more = ("optimizer.learning_rate=1e-2", f"run.allow_changes={allowed}")
    assert resumed(stopped, *more) == stopped / "x/checkpoints/checkpoint-1"


@pytest.mark.parametrize("allowed", ["[optimizer.weight_decay]", "[optimizer.learn]"])
def test_another_setting_may_not(stopped: Path, allowed: str) -> None:
    with pytest.raises(UserError, match=r"optimizer\.learning_rate=0\.01|optimizer\.learn,? which is no fact"):
        resumed(stopped, "optimizer.learning_rate=1e-2", f"run.allow_changes={allowed}")


@pytest.mark.parametrize(
    ("fact", "now", "named"),
    [
        ("world_size", 4, r"world_size: 4 \(was 2\)"),
        ("engine", "zero3", r"engine: zero3 \(was zero2\)"),
        ("data", "d1", r"data: d1 \(was d0\)"),
        ("tokenizer", "t1", r"tokenizer: t1 \(was t0\)"),
        ("code", "c1", r"code: c1 \(was c0\)"),
        ("packages", {"torch": "2.1"}, r"packages\.torch: 2\.1 \(was 2\.0\)"),
    ],
)
def test_other_facts_are_refused_by_name_unless_they_are_allowed(
    stopped: Path, fact: str, now: Any, named: str
) -> None:
    with pytest.raises(UserError, match=rf"checkpoint-1 was made by another run: {named}.*run\.allow_changes=\["):
        found(stopped, **{fact: now})
    assert found(stopped, f"run.allow_changes=[{fact}]", **{fact: now}).step == 1


def test_a_name_that_is_neither_setting_nor_fact_is_refused(stopped: Path) -> None:
    with pytest.raises(UserError, match="has wrold_size, which is no fact of a checkpoint; did you mean world_size"):
        found(stopped, "run.allow_changes=[wrold_size]")


def test_the_settings_are_those_of_the_checkpoint_not_of_the_folder(stopped: Path) -> None:
    """config.yaml is of the last start; a checkpoint may be of an earlier one with other settings."""
    folder = RunFolder(stopped / "x")
    write_config(compose(settings(stopped, "optimizer.learning_rate=1e-2")), folder.config)
    assert resumed(stopped) == folder.checkpoints / "checkpoint-1"


def test_a_damaged_checkpoint_is_passed_over_and_said(stopped: Path) -> None:
    folder = RunFolder(stopped / "x")
    newer = save(folder, 2, compose(settings(stopped)))
    (newer / "model.safetensors").write_bytes(b"weighty")
    chosen = found(stopped)
    assert (chosen.checkpoint, chosen.here) == (folder.checkpoints / "checkpoint-1", True)
    assert len(chosen.notes) == 1
    for part in ("checkpoint-2 is damaged", "model.safetensors: digest differs", "using checkpoint-1 instead"):
        assert part in chosen.notes[0]


def test_auto_starts_anew_where_nothing_is_whole_and_true_does_not(stopped: Path) -> None:
    only = stopped / "x/checkpoints/checkpoint-1"
    (only / "MANIFEST.json").unlink()
    chosen = found(stopped, "run.resume=auto")
    assert chosen.checkpoint is None
    assert "no earlier checkpoint is whole" in chosen.notes[0]
    with pytest.raises(UserError, match=r"holds no complete checkpoint: checkpoint-1 is damaged .*MANIFEST\.json"):
        resumed(stopped)


def test_auto_starts_anew_in_a_new_folder(tmp_path: Path) -> None:
    assert found(tmp_path, "run.resume=auto") == Resume(None, True)


def test_what_a_kill_left_is_cleared_away_and_a_replaced_checkpoint_gets_its_name_back(stopped: Path) -> None:
    checkpoints = stopped / "x/checkpoints"
    (checkpoints / "checkpoint-1").rename(checkpoints / ".replaced-checkpoint-1")
    (checkpoints / ".staging/checkpoint-2").mkdir(parents=True)
    assert resumed(stopped) == checkpoints / "checkpoint-1"
    assert [path.name for path in checkpoints.iterdir()] == ["checkpoint-1"]


def test_a_path_goes_on_from_that_checkpoint_and_no_other(stopped: Path) -> None:
    folder = RunFolder(stopped / "x")
    save(folder, 2, compose(settings(stopped)))
    first = folder.checkpoints / "checkpoint-1"
    chosen = found(stopped, f"run.resume={first}")
    assert (chosen.checkpoint, chosen.here, chosen.step) == (first, True, 1)
    other = checkpoint_to_resume(
        compose(settings(stopped, f"run.resume={first}")), RunFolder(stopped / "y"), FACTS
    )  # fmt: skip
    assert (other.checkpoint, other.here) == (first, False)
    (first / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"checkpoint-1 is damaged \(model\.safetensors: missing\)"):
        found(stopped, f"run.resume={first}")


def test_going_back_takes_later_checkpoints_out_of_the_way(stopped: Path) -> None:
    folder = RunFolder(stopped / "x")
    first = folder.checkpoints / "checkpoint-1"
    before, after = (record_path(folder.rollouts, step) for step in (1, 2))
    folder.rollouts.mkdir()
    before.touch()
    for time in (1, 2):
        save(folder, 2, compose(settings(stopped)))
        after.touch()
        assert set_aside(folder, found(stopped), True) == set_aside(folder, found(stopped), AUTO) == []
        back = found(stopped, f"run.resume={first}")
        [said] = set_aside(folder, back, str(first))
        assert f"checkpoint-2, step_000002 are of the part that is left now and were moved to {stopped}/x/a" in said
        assert [path.name for path in folder.rollouts.iterdir()] == [before.name]
        assert (stopped / f"x/abandoned/{time}/rollouts" / after.name).exists()
        assert [path.name for path in folder.checkpoints.iterdir()] == ["checkpoint-1"]
        assert verify(stopped / f"x/abandoned/{time}/checkpoints/checkpoint-2") == []
        assert resumed(stopped) == first, "and not the later one"
        assert set_aside(folder, found(stopped, f"run.resume={first}"), str(first)) == []
    elsewhere = Resume(first, here=False)
    save(folder, 2, compose(settings(stopped)))
    assert set_aside(folder, elsewhere, str(first)) == []


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("run.resume=nowhere", "run.resume=nowhere is not a folder; expected true, false, auto or the path"),
        ("run.resume=3", "run.resume is 3; expected true, false, auto or the path of a checkpoint"),
        ("run.resume=null", "run.resume is None; expected true, false, auto"),
    ],
)
def test_other_values_of_resume_are_refused(tmp_path: Path, given: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        found(tmp_path, given)


def test_a_refused_resume_leaves_the_record_as_it_was(stopped: Path) -> None:
    before = (stopped / "x/config.yaml").read_text()
    with pytest.raises(UserError, match="is not the run of"):
        Run(compose(settings(stopped, "run.resume=true", "optimizer.learning_rate=1e-2")), silent())
    assert (stopped / "x/config.yaml").read_text() == before


def test_a_run_that_is_done_says_so_once_it_has_told_what_came_out(stopped: Path) -> None:
    folder = RunFolder(stopped / "x")
    assert found(stopped, "run.steps=1").step == 1, "killed after its last step, before the summary"
    folder.write_summary({"steps": 1})
    with pytest.raises(UserError, match=r"has made 1 steps and run\.steps is 1; set it above 1"):
        found(stopped, "run.steps=1")
    save(folder, 3, compose(settings(stopped)))
    with pytest.raises(UserError, match=r"has made 3 steps and run\.steps is 2; set it above 3"):
        found(stopped)


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_more_steps_are_refused_where_the_schedule_ends_with_the_run(schedule: str, tmp_path: Path) -> None:
    chosen = f"optimizer.lr_scheduler_type={schedule}"
    folder, config = RunFolder(tmp_path / "x"), compose(settings(tmp_path, chosen))
    path = save(folder, 1, config)
    assert resumed(tmp_path, chosen) == path
    with pytest.raises(UserError, match=r"run\.steps=9 \(was 2\).*run\.allow_changes=\[run\.steps\]"):
        resumed(tmp_path, chosen, "run.steps=9")
    assert resumed(tmp_path, chosen, "run.steps=9", "run.allow_changes=[run.steps]") == path


def test_a_resume_without_a_name_asks_for_one(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="say which run goes on"):
        Run(compose([*settings(tmp_path), "run.name=null", "run.resume=true"]), silent())


def test_a_saved_configuration_does_not_differ_from_itself(stopped: Path) -> None:
    saved = read_config(stopped / "x/config.yaml")
    assert differences(shaping(saved), shaping(compose(settings(stopped)))) == {}


def test_what_was_measured_before_the_checkpoint_stays_in_the_history(tmp_path: Path) -> None:
    rows = [{"step": 1}, {"step": 2, "heldout/accuracy": 0.5}, {"step": 3}, {"step": 4, "heldout/accuracy": 0.75}]
    metrics = tmp_path / "metrics.jsonl"
    metrics.write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"step": 5, "held')
    assert heldout_history(metrics, 3) == [(2, 0.5)]
    assert heldout_history(metrics, 4) == [(2, 0.5), (4, 0.75)]
    assert heldout_history(metrics, 0) == []
