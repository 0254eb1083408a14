"""The command line: quick to answer, one line for a mistake, and no folder for a run that was refused."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from rlvr.cli import main
from rlvr.config.compose import compose, write_config

HELP_SECONDS = 1.5
HEAVY = ("torch", "trl", "hydra", "transformers")


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"]])
def test_help_answers_at_once_and_imports_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys, json; from rlvr.cli import main\n"
        f"try: main({arguments!r})\n"
        f"finally: print('LOADED', json.dumps([name for name in {HEAVY!r} if name in sys.modules]), file=sys.stderr)"
    )
    seconds = []
    for _ in range(2):  # the quicker of two: a busy machine may hold up one
        start = time.perf_counter()
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
        seconds.append(time.perf_counter() - start)
    assert done.returncode == 0
    assert "train" in done.stdout
    assert json.loads(done.stderr.split("LOADED ")[1]) == []
    assert min(seconds) < HELP_SECONDS


def test_the_module_is_the_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "rlvr.cli", "train", "algorithm=dap"], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("rlvr: algorithm=dap is unknown; did you mean dapo? known are ")
    assert len(done.stderr.splitlines()) == 1


@pytest.fixture
def refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs `rlvr train` with settings that must be refused; gives back the one line it says."""

    def run(*arguments: str) -> str:
        runs = tmp_path / "runs"
        code = main(["train", *arguments, f"run.dir={runs}", "run.name=x"])
        said = capfd.readouterr().err
        assert code == 2
        assert len(said.splitlines()) == 1, said
        assert said.startswith("rlvr: ")
        assert not runs.exists()
        return said

    return run


REFUSED = {
    "foo": "foo is not a setting",
    "recipe=nope": "recipe=nope is unknown",
    "selection.kep=0.1": "did you mean keep?",
    "selection.keep=1.5": "selection.keep is 1.5",
    "run.steps=many": "expected a whole number",
    "optimizer.micro_batch_rows=5": "optimizer.micro_batch_rows is 5",
    "trl.foo=1": "trl.foo is not a field of TRL's GRPOConfig",
    "trl.adam_beta=1": "did you mean trl.adam_beta",
    "trl.learning_rate=1": "trl.learning_rate is not taken here: optimizer.learning_rate",
    "trl.adam_beta1=x": "trl.adam_beta1 is 'x'; expected a number",
    "trl.optim=nope": "nope is not a valid OptimizerNames",
    "optimizer.lr_scheduler_type=nope": "nope is not a valid SchedulerType",
    "logging.report_to=[nope]": "nope is not supported",
    "model.path=./nowhere": "model.path=./nowhere is not a folder",
    "data.train_size=0": "data.train_size is 0",
    "objective.epsilon=0": "objective.epsilon is 0.0",
}  # fmt: skip


@pytest.mark.parametrize("override", REFUSED)
def test_a_mistake_is_one_line_and_leaves_no_folder(override: str, refused: Callable[..., str]) -> None:
    assert REFUSED[override] in refused(override)


def test_answers_that_contradict_each_other_leave_no_folder(refused: Callable[..., str]) -> None:
    settings = ["selection.scope=micro_batch", "selection.normalizer=released", "objective.reduction=constant"]
    assert "set objective.reduction=token_mean" in refused(*settings)


def test_a_folder_without_a_model_leaves_no_folder(refused: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "cannot be loaded" in refused(f"model.path={tmp_path / 'empty'}")


@pytest.mark.parametrize("place", ["before", "after"])
def test_a_run_is_repeated_but_not_as_another_variant(place: str, refused: Callable[..., str], tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    write_config(compose(["run.name=x"]), path)
    source = ["--from", str(path)]
    arguments = [*source, "selection=random"] if place == "after" else ["selection=random", *source]
    assert "selection=random cannot be combined with --from" in refused(*arguments)


def test_repeating_a_missing_file_is_refused(refused: Callable[..., str], tmp_path: Path) -> None:
    assert "is not a file; expected the config.yaml of a run folder" in refused("--from", str(tmp_path / "none.yaml"))


def test_repeating_a_run_that_replaced_a_folder_does_not_replace_that_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "x"
    folder.mkdir()
    write_config(compose([f"run.dir={tmp_path}", "run.name=x", "run.overwrite=true"]), folder / "config.yaml")
    assert main(["train", "--from", str(folder / "config.yaml")]) == 2
    assert f"{folder} exists and is not empty" in capsys.readouterr().err
    assert [path.name for path in folder.iterdir()] == ["config.yaml"]


def test_an_unknown_option_is_refused() -> None:
    with pytest.raises(SystemExit) as ended:
        main(["train", "run.seed=1", "--form", "x"])
    assert ended.value.code == 2


def test_a_reader_that_has_enough_is_no_error() -> None:
    command = f"{sys.executable} -m rlvr.cli recipes | head -n 1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=120)
    assert len(done.stdout.splitlines()) == 1
    assert done.stderr == ""
