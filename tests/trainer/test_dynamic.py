"""Dynamic sampling in a real run: every trained group is mixed, a resume goes on exactly, ranks change nothing."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from rlvr.config.compose import compose
from rlvr.errors import UserError
from rlvr.rewards.grade import grade
from rlvr.rollouts.dynamic import DynamicSection
from rlvr.rollouts.record import read_record
from rlvr.train import train
from tests.ranks import run_ranks
from tests.trainer import tiny_run
from tests.trainer.tiny import make_qwen3

SMALL = [
    "algorithm=dapo_dynamic", "rollouts.prompts=4", "rollouts.num_generations=4", "optimizer.micro_batch_rows=16",
    "evaluation.problems=4", "data.train_size=64", "data.heldout_size=4", "rollouts.record.every=1", "run.name=x",
    "logging.progress=none",
]  # fmt: skip
TIMES = ("seconds", "step_time", "verifier/seconds")


def run(folder: Path, *more: str) -> list[dict]:
    train(compose([*SMALL, f"run.dir={folder}", *more]), Console(quiet=True))
    rows = [json.loads(line) for line in (folder / "x" / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if not name.startswith(TIMES)} for row in rows]


def groups(folder: Path) -> list[list[dict]]:
    """The recorded groups of every batch."""
    rows = [row for path in sorted((folder / "x" / "rollouts").glob("*.parquet")) for row in read_record(path)]
    return [rows[start : start + 4] for start in range(0, len(rows), 4)]


def test_every_trained_group_is_mixed_and_whole(tmp_path: Path) -> None:
    rows = run(tmp_path, "run.steps=3")
    found = groups(tmp_path)
    assert len(found) == 3 * 4
    for group in found:
        assert len({row["prompt"] for row in group}) == len({row["group"] for row in group}) == 1
        assert {row["correct"] for row in group} == {True, False}
        assert all(row["correct"] == (row["rewards"]["accuracy"] == 1.0) for row in group)
        assert all(row["entropies"] is not None and any(row["advantages"]) for row in group)
    assert all(row["dynamic/rounds"] >= 1 and row["dynamic/tokens_per_kept"] >= 1 for row in rows)
    assert all(row["dynamic/missing"] == 0 for row in rows)
    assert max(row["dynamic/rounds"] for row in rows) > 1, "this policy solves too much for one round"


def test_the_verdicts_of_a_reward_that_is_not_the_first_stay_with_their_rows(tmp_path: Path) -> None:
    run(tmp_path, "reward=self_consistency", "run.steps=2")
    rows = [row for group in groups(tmp_path) for row in group]
    assert {row["correct"] for row in rows} == {True, False}
    assert all(
        row["correct"] == grade(row["completion"], row["gold"], truncated=row["truncated"]).correct for row in rows
    )


@pytest.mark.parametrize("surplus", ["drop", "carry"])
def test_a_resume_goes_on_with_the_prompts_and_the_surplus_it_had(tmp_path: Path, surplus: str) -> None:
    settings = [f"rollouts.dynamic.surplus={surplus}", "rollouts.dynamic.prompts=8", "run.save_steps=2"]
    whole = run(tmp_path / "whole", *settings, "run.steps=4")
    run(tmp_path / "parts", *settings, "run.steps=2")
    assert run(tmp_path / "parts", *settings, "run.steps=4", "run.resume=true") == whole
    assert any(row["dynamic/surplus"] > 0 for row in whole)
    if surplus == "carry":
        assert whole[-1]["clip_ratio/region_mean"] >= 0


def test_carried_groups_are_weighed_by_the_policy_that_sampled_them(tmp_path: Path) -> None:
    # Rounds much larger than a batch: from the second batch on everything is carried, and no round is made.
    rows = run(
        tmp_path, "rollouts.dynamic.surplus=carry", "rollouts.dynamic.prompts=32", "run.steps=3",
        "optimizer.learning_rate=5e-3",
    )  # fmt: skip
    assert [row["dynamic/rounds"] for row in rows] == [1, 0, 0]
    records = groups(tmp_path)
    assert records[4][0]["logprobs"] is not None
    # The ratio to the policy that sampled is not 1 after a step of this size: its clip must bite somewhere.
    assert rows[0]["clip_ratio/region_mean"] == 0
    assert rows[1]["clip_ratio/region_mean"] + rows[2]["clip_ratio/region_mean"] > 0


def test_the_limit_of_rounds_ends_a_run_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"after 1 rounds of 4 prompts, \d of 4 groups have verdicts that differ"):
        run(tmp_path, "run.steps=20", "rollouts.dynamic.max_rounds=1")


def test_an_algorithm_that_reads_no_verdict_has_no_use_for_it(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"rollouts.dynamic.max_rounds is 3, but this algorithm reads no verdicts"):
        run(tmp_path, "algorithm=em_ft", "rollouts.dynamic.max_rounds=3", "run.steps=1")


@pytest.mark.parametrize("surplus", ["drop", "carry"])
def test_two_ranks_make_the_same_rounds_and_end_with_equal_weights(surplus: str, tmp_path: Path) -> None:
    def on_rank(rank: int) -> dict:
        verdicts: list = []

        def look(trainer: Any, batch: Any, rows: Any) -> None:
            verdicts.append(batch.sampled.rollouts.verdicts.view(-1, tiny_run.G).tolist())

        dynamic = DynamicSection(max_rounds=20, surplus=surplus)
        trainer = tiny_run.make_trainer(tmp_path / str(rank), ranks=2, dynamic=dynamic, on_rollout=look)
        trainer.train()
        rounds = [row["dynamic/rounds"] for row in tiny_run.history(trainer) if "dynamic/rounds" in row]
        return {
            "rounds": rounds, "taken": trainer.stream.taken, "verdicts": verdicts,
            "weights": {name: value.numpy() for name, value in tiny_run.weights(trainer).items()},
        }  # fmt: skip

    first, second = run_ranks(2, on_rank)
    assert first["rounds"] == second["rounds"]
    assert first["taken"] == second["taken"] == tiny_run.P * sum(first["rounds"])
    assert all(len(set(group)) == 2 for batch in first["verdicts"] for group in batch), "every trained group is mixed"
    tensors = [{name: torch.from_numpy(value) for name, value in each["weights"].items()} for each in (first, second)]
    tiny_run.assert_equal_weights(*tensors)
    assert tiny_run.largest_difference(tensors[0], make_qwen3(tiny_run.VOCABULARY).state_dict()) > 1e-3
