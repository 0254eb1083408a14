"""A run from its configuration to its folder: the files contract 9 names, repeatable from what it saved."""

import json
import logging
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from rlvr.config.compose import compose, read_config
from rlvr.errors import UserError
from rlvr.rollouts.record import read_record
from rlvr.train import train

SMALL = [
    "run.steps=2", "run.save_steps=1", "rollouts.prompts=4", "optimizer.micro_batch_rows=16", "evaluation.problems=16",
    "data.train_size=32", "data.heldout_size=16", "rollouts.record.every=1", "rollouts.record.max_completions=20",
]  # fmt: skip
COLUMNS = {
    "step", "rollout_step", "row", "group", "prompt_id", "prompt", "completion", "gold", "reward", "rewards", "correct",
    "status", "truncated", "token_ids", "entropies", "logprobs", "kept", "advantages",
}  # fmt: skip
PER_TOKEN = ("token_ids", "entropies", "logprobs", "kept", "advantages")
TIMES = ("seconds", "step_time", "verifier/seconds")


def settings(folder: Path, *more: str) -> list[str]:
    return [*SMALL, f"run.dir={folder}", "run.name=x", "logging.progress=none", *more]


def metrics(folder: Path) -> list[dict[str, Any]]:
    """The rows of a run without its times."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if not name.startswith(TIMES)} for row in rows]


def silent() -> Console:
    return Console(quiet=True)


class Finished:
    """A run that ended."""

    def __init__(self, folder: Path) -> None:
        self.config = compose(settings(folder))
        self.summary = train(self.config, silent())
        self.path = folder / "x"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    return Finished(tmp_path_factory.mktemp("runs"))


def test_the_folder_holds_the_files_of_a_run_and_no_other(run: Finished) -> None:
    assert {path.name for path in run.path.iterdir()} - {"report.html"} == {
        "config.yaml", "metrics.jsonl", "rollouts", "checkpoints", "summary.json", "log.txt",
    }  # fmt: skip
    assert sorted(path.name for path in (run.path / "rollouts").iterdir()) == [
        "step_000001.parquet", "step_000002.parquet",
    ]  # fmt: skip
    checkpoints = [path.name for path in (run.path / "checkpoints").iterdir() if path.is_dir()]
    assert sorted(checkpoints) == ["checkpoint-1", "checkpoint-2"]
    assert (run.path / "log.txt").stat().st_size > 0


def test_the_summary_says_what_came_out(run: Finished) -> None:
    summary = json.loads((run.path / "summary.json").read_text())
    assert summary == json.loads(json.dumps(run.summary))
    assert {"accuracy_before", "accuracy_after", "steps", "train_seconds", "seed"} <= set(summary)
    assert (summary["steps"], summary["seed"], summary["heldout_problems"]) == (2, 0, 16)
    assert all(0 <= summary[name] <= 1 for name in ("accuracy_before", "accuracy_after"))
    assert summary["train_seconds"] > 0


def test_every_step_is_a_row_that_names_its_place(run: Finished) -> None:
    rows = metrics(run.path)
    assert [(row["step"], row["rollout_step"], row["epoch"]) for row in rows] == [(1, 1, 0.125), (2, 2, 0.25)]
    assert all(math.isfinite(row["loss"]) and "reward" in row and "entropy" in row for row in rows)


def test_a_run_is_repeated_from_its_configuration(run: Finished, tmp_path: Path) -> None:
    config = read_config(run.path / "config.yaml", [f"run.dir={tmp_path}", "run.name=again"])
    again = train(config, silent())
    assert metrics(tmp_path / "again") == metrics(run.path)
    times = {"train_seconds"}
    assert {k: v for k, v in again.items() if k not in times} == {
        k: v for k, v in run.summary.items() if k not in times
    }
    assert read_record(tmp_path / "again/rollouts/step_000002.parquet") == read_record(
        run.path / "rollouts/step_000002.parquet"
    )


def test_checkpoints_load_as_models_and_tokenizers(run: Finished) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    weights = []
    for step in (1, 2):
        folder = run.path / "checkpoints" / f"checkpoint-{step}"
        model = AutoModelForCausalLM.from_pretrained(folder)
        tokens = AutoTokenizer.from_pretrained(folder)("7+4*2-3=", return_tensors="pt", return_token_type_ids=False)
        assert model(**tokens).logits.isfinite().all()
        weights.append(model.state_dict())
    assert any(not torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


@pytest.mark.parametrize("step", [1, 2])
def test_records_hold_what_was_sampled(step: int, run: Finished) -> None:
    rows = read_record(run.path / "rollouts" / f"step_{step:06d}.parquet")
    assert len(rows) == 20, "rollouts.record.max_completions"
    golds = {problem.prompt: problem for problem in run.config.data.train()}
    for index, row in enumerate(rows):
        assert set(row) >= COLUMNS
        assert (row["step"], row["rollout_step"], row["row"], row["group"]) == (step, step, index, index // 8)
        problem = golds[row["prompt"]]
        assert (row["gold"], row["prompt_id"]) == (problem.gold, problem.prompt_id)
        assert {len(row[name]) for name in PER_TOKEN} == {len(row["token_ids"])}
        assert row["rewards"] == {"accuracy": row["reward"]}
        assert row["correct"] == (row["reward"] == 1)
        assert row["truncated"] or row["token_ids"]
        assert all(logprob <= 0 for logprob in row["logprobs"])


def test_alternatives_say_what_else_was_likely(run: Finished) -> None:
    for row in read_record(run.path / "rollouts/step_000001.parquet"):
        assert len(row["top_ids"]) == len(row["top_logprobs"]) == len(row["token_ids"])
        for place, (ids, logprobs) in enumerate(zip(row["top_ids"], row["top_logprobs"], strict=True)):
            assert len(set(ids)) == 5
            assert logprobs == sorted(logprobs, reverse=True)
            assert sum(map(math.exp, logprobs)) <= 1 + 1e-5
            if row["token_ids"][place] in ids:  # two ways to the same number: while sampling, and here
                found = logprobs[ids.index(row["token_ids"][place])]
                assert found == pytest.approx(row["logprobs"][place], abs=1e-4)


def test_recorded_tokens_spell_the_recorded_completion(run: Finished) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(run.path / "checkpoints/checkpoint-1")
    for row in read_record(run.path / "rollouts/step_000001.parquet"):
        assert tokenizer.decode(row["token_ids"], skip_special_tokens=True) == row["completion"]


def test_kept_tokens_are_the_most_uncertain_of_informative_groups(run: Finished) -> None:
    rows = read_record(run.path / "rollouts/step_000001.parquet")[:16]  # two whole groups
    kept = [e for row in rows for e, keep in zip(row["entropies"], row["kept"], strict=True) if keep]
    dropped = []
    for group in (rows[:8], rows[8:]):
        informative = len({row["correct"] for row in group}) == 2
        assert informative or not any(any(row["kept"]) for row in group)
        if informative:
            dropped += [e for row in group for e, keep in zip(row["entropies"], row["kept"], strict=True) if not keep]
    assert kept
    assert min(kept) >= max(dropped)


def test_a_used_name_is_refused_before_anything_is_touched(run: Finished) -> None:
    before = {path: path.stat().st_mtime_ns for path in run.path.rglob("*")}
    with pytest.raises(UserError, match="exists and is not empty"):
        train(compose(settings(run.path.parent)), silent())
    assert {path: path.stat().st_mtime_ns for path in run.path.rglob("*")} == before


def test_a_run_goes_on_from_its_newest_checkpoint(run: Finished, tmp_path: Path) -> None:
    short = compose(settings(tmp_path, "run.steps=1"))
    train(short, silent())
    with (tmp_path / "x" / "metrics.jsonl").open("a") as file:
        file.write(
            json.dumps({"step": 2, "seconds": 1.0, "loss": 0.0}) + "\n"
        )  # lost with the checkpoint it belongs to
    summary = train(compose(settings(tmp_path, "run.resume=true")), silent())
    assert summary["steps"] == 2
    assert metrics(tmp_path / "x") == metrics(run.path)
    assert summary["accuracy_after"] == run.summary["accuracy_after"]


def test_held_out_accuracy_is_measured_on_the_way_without_changing_the_run(run: Finished, tmp_path: Path) -> None:
    more = ("evaluation.every=1", "logging.report_to=[tensorboard]")
    summary = train(compose(settings(tmp_path, *more)), silent())
    assert [step for step, _ in summary["accuracy_during"]] == [1]
    rows = metrics(tmp_path / "x")
    assert rows[0].pop("heldout/accuracy") == summary["accuracy_during"][0][1]
    assert rows == metrics(run.path)
    assert list((tmp_path / "x").rglob("events.out.tfevents.*")), "an event file for tensorboard"


def test_the_log_of_a_run_ends_with_it(run: Finished) -> None:
    open_files = [getattr(handler, "baseFilename", "") for handler in logging.getLogger().handlers]
    assert str(run.path / "log.txt") not in open_files
    before = (run.path / "log.txt").read_text()
    logging.getLogger("rlvr").warning("afterwards")
    assert (run.path / "log.txt").read_text() == before


@pytest.mark.slow
def test_weights_and_biases_takes_the_metrics_offline(tmp_path: Path) -> None:
    more = ["logging.report_to=[wandb]", "evaluation.problems=1"]
    folders = {name: str(tmp_path / name) for name in ("WANDB_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR")}
    for folder in folders.values():
        Path(folder).mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "rlvr.cli", "train", *settings(tmp_path, *more)],
        env={**os.environ, **folders, "WANDB_MODE": "offline", "PYTHONPATH": str(Path(__file__).parents[2])},
        cwd=tmp_path, capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert len(metrics(tmp_path / "x")) == 2
    assert list(tmp_path.rglob("run-*.wandb"))
