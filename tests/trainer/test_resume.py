"""A run goes on as itself or not at all, and is refused before anything is written."""

from pathlib import Path

import pytest

from rlvr.config.compose import compose, read_config, write_config
from rlvr.errors import UserError
from rlvr.resume import checkpoint_to_resume, differences
from rlvr.run_folder import RunFolder
from rlvr.train import Run
from tests.trainer.test_train import settings, silent


@pytest.fixture
def stopped(tmp_path: Path) -> Path:
    """A run folder that stopped after step 1 of 2."""
    folder = RunFolder(tmp_path / "x")
    checkpoint = folder.checkpoints / "checkpoint-1"
    checkpoint.mkdir(parents=True)
    (checkpoint / "rlvr_state_0.pt").write_bytes(b"")
    write_config(compose(settings(tmp_path)), folder.config)
    return tmp_path


def resumed(folder: Path, *more: str) -> Path | None:
    return checkpoint_to_resume(compose(settings(folder, "run.resume=true", *more)), RunFolder(folder / "x"))


def test_the_same_run_goes_on_with_more_steps_and_other_logging(stopped: Path) -> None:
    assert resumed(stopped, "run.steps=9", "evaluation.every=1") == stopped / "x/checkpoints/checkpoint-1"


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


def test_a_refused_resume_leaves_the_record_as_it_was(stopped: Path) -> None:
    before = (stopped / "x/config.yaml").read_text()
    with pytest.raises(UserError, match="is not the run of"):
        Run(compose(settings(stopped, "run.resume=true", "optimizer.learning_rate=1e-2")), silent())
    assert (stopped / "x/config.yaml").read_text() == before


def test_a_run_that_is_done_says_so(stopped: Path) -> None:
    with pytest.raises(UserError, match=r"has made 1 steps and run\.steps is 1; set it above 1"):
        resumed(stopped, "run.steps=1")


def test_a_resume_without_a_name_asks_for_one(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="say which run goes on"):
        Run(compose([*settings(tmp_path), "run.name=null", "run.resume=true"]), silent())


def test_a_saved_configuration_does_not_differ_from_itself(stopped: Path) -> None:
    saved = read_config(stopped / "x/config.yaml")
    assert differences(saved, compose(settings(stopped))) == []
