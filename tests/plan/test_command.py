"""`rlvr plan`: quick, without a trace, and one line for what cannot be."""

import json
import os
import re
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from rlvr.cli import main
from rlvr.config.compose import read_config
from rlvr.model_shape import read_shape

SECONDS = 8
"""Of the processor, which a busy machine does not count; about 3 on a quiet one."""


def test_a_plan_comes_quickly_without_trl_and_leaves_no_file(tmp_path: Path) -> None:
    code = (
        "import sys, json; from rlvr.cli import main\n"
        "code = main(['plan'])\n"
        "print(json.dumps([name for name in ('trl', 'transformers', 'accelerate') if name in sys.modules]))\n"
        "sys.exit(code)"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert json.loads(done.stdout.splitlines()[-1]) == []
    assert list(tmp_path.iterdir()) == []
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < SECONDS


def planned(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[str, str]:
    """The configuration and the sentences that were printed."""
    assert main(["plan", *arguments]) == 0
    config, sentences = capsys.readouterr().out.split("\n\n")
    return config, sentences


def test_the_resolved_configuration_is_printed_as_a_run_would_save_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, sentences = planned(capsys, "algorithm=dapo", "run.steps=7", "optimizer.learning_rate=1e-5")
    (tmp_path / "config.yaml").write_text(config)
    read = read_config(tmp_path / "config.yaml")
    assert (read.run.algorithm, read.run.steps, read.optimizer.learning_rate) == ("dapo", 7, 1e-5)
    assert "7 rollout batches make 7 optimizer steps" in sentences
    again, _ = planned(capsys, "--from", str(tmp_path / "config.yaml"))
    assert again == config


def test_memory_is_told_for_the_built_in_policy_by_its_own_count(capsys: pytest.CaptureFixture[str]) -> None:
    from rlvr.assets import base_policy_path

    shape = read_shape(str(base_policy_path()))
    assert shape is not None
    _, sentences = planned(capsys, "--prompt-tokens", "9")
    assert f"estimated for {shape.parameters:,} parameters and prompts of 9 tokens" in sentences
    assert "key-value cache while sampling" in sentences
    assert "reference model" not in sentences


def test_processes_share_the_rows(capsys: pytest.CaptureFixture[str]) -> None:
    _, sentences = planned(capsys, "--processes", "4")
    assert "256 rows / 4 processes = 64 rows on each" in sentences


def test_memory_of_a_hub_id_is_not_estimated(capsys: pytest.CaptureFixture[str]) -> None:
    _, sentences = planned(capsys, "model.path=Qwen/Qwen3-8B-Base")
    assert "memory: not estimated; the model is no local folder of safetensors" in sentences


def test_what_data_say_is_told_and_long_prompts_bound_the_guess(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"problem": "1+1=?" * 500, "answer": "2"}, {"problem": "2+2=?", "answer": "4"}]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = ["data=files", f"data.train_files={tmp_path / 'train.jsonl'}"]
    _, sentences = planned(capsys, *data)
    assert "prompts from `problem`" in sentences
    assert "prompts of 1251 tokens" in sentences, "2500 characters, two to a token"
    _, sentences = planned(capsys, *data, "data.max_prompt_tokens=100")
    assert "prompts of 100 tokens" in sentences
    assert "prompts of more than 100 tokens still in" in sentences


@pytest.fixture
def refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs `rlvr plan` with what must be refused; gives back the one line it says."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> str:
        assert main(["plan", *arguments]) == 2
        said = capsys.readouterr()
        assert said.out == ""
        assert len(said.err.splitlines()) == 1, said.err
        assert said.err.startswith("rlvr: ")
        assert list(tmp_path.iterdir()) == []
        return said.err

    return run


REFUSED = {
    "--processes 0": "the number of processes is 0; expected a whole number of at least 1",
    "--processes -2": "the number of processes is -2",
    "--prompt-tokens -5": "--prompt-tokens is -5; expected at least 1",
    "--prompt-tokens 0": "--prompt-tokens is 0; expected at least 1",
    "selection.kep=0.1": "did you mean keep?",
    "foo.bar=1": "foo is not a section of the configuration",
    "launch.x=1": "launch.x is not a field of LaunchSection",
    "launch.processes=0": "launch.processes is 0; expected a whole number of at least 1",
    "trl.foo=1": "trl.foo is not a field of TRL's GRPOConfig",
    "trl.beta=1": "trl.beta is not taken here: objective.beta",
    "model.path=./nowhere": "model.path=./nowhere is not a folder",
    "data=files": "data.train_files",
    "deepspeed.zero_optimization.stage=9": "expected 0, 1, 2 or 3",
    "selection.scope=micro_batch selection.normalizer=released objective.reduction=constant": "set objective.reduction",
    "selection.scope=micro_batch objective.beta=0.1 objective.kl_tokens=kept": "set objective.kl_tokens=all",
}


@pytest.mark.parametrize("arguments", REFUSED)
def test_a_plan_that_cannot_be_is_one_line(arguments: str, refused: Callable[..., str]) -> None:
    assert REFUSED[arguments] in refused(*arguments.split())


def test_slices_are_the_largest_whole_share_of_at_most_64_rows(capsys: pytest.CaptureFixture[str]) -> None:
    assert "slices of 32 rows" in planned(capsys, "rollouts.prompts=4")[1]
    assert "slices of 44 rows" in planned(capsys, "rollouts.prompts=33", "--processes", "3")[1]


INCONSISTENT = {
    "optimizer.micro_batch_rows=48": r"optimizer.micro_batch_rows is 48.*set it to (\d+) or (\d+) or (\d+)",
    "optimizer.updates_per_rollout=3": r"does not divide into 3 updates.*set it to (\d+) or (\d+)",
    "--processes 3": r"groups would straddle ranks; expected a multiple of 3: set it to (\d+) or (\d+)",
}
SETTING = {
    "optimizer.micro_batch_rows=48": "optimizer.micro_batch_rows={}",
    "optimizer.updates_per_rollout=3": "optimizer.updates_per_rollout=3 rollouts.prompts={}",
    "--processes 3": "--processes 3 rollouts.prompts={}",
}


@pytest.mark.parametrize("arguments", INCONSISTENT)
def test_the_values_that_a_refusal_names_are_accepted(
    arguments: str, refused: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    found = re.search(INCONSISTENT[arguments], refused(*arguments.split()))
    assert found
    for value in found.groups():
        fitting = [] if "micro" in arguments else ["optimizer.micro_batch_rows=1"]
        planned(capsys, *SETTING[arguments].format(value).split(), *fitting)
