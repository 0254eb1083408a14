"""Optional columns of the record: key-token values, and the importance ratios that the updates saw."""

import logging
from pathlib import Path
from typing import Any

import pytest
import torch

from rlvr.errors import UserError
from rlvr.rollouts.record import RecordSection, read_record
from rlvr.trainer.record import Recorder
from tests.trainer.tiny_run import ITERATIONS, STEPS, VOCABULARY, W, make_trainer


class Kept:
    """Passes every rollout batch on, and keeps what each gradient pass said."""

    def __init__(self, recorder: Recorder) -> None:
        self.recorder, self.seen, self.batches = recorder, [], []

    def __call__(self, trainer: Any, batch: Any, prompts: Any) -> None:
        trainer.completions = [""] * len(prompts)
        self.batches.append(batch)
        self.seen.append([])
        self.recorder(trainer, batch, prompts)
        inner = trainer.on_slice

        def both(part: Any, logps: Any) -> None:
            self.seen[-1].append((part, logps.clone()))
            inner(part, logps)

        trainer.on_slice = both


def a_run(folder: Path, algorithm: str, **changes: Any) -> tuple[Kept, list[list[dict[str, Any]]]]:
    kept = Kept(Recorder(folder / "rollouts", 1, 16, []))
    trainer = make_trainer(folder, algorithm, on_rollout=kept, **changes)
    trainer.train()
    return kept, [read_record(path) for path in sorted((folder / "rollouts").iterdir())]


def test_the_last_ratio_of_each_token_is_recorded(tmp_path: Path) -> None:
    kept, records = a_run(tmp_path, "dapo_top20")
    assert len(records) == STEPS // (W * ITERATIONS) == 2
    moved = 0
    for batch, seen, rows in zip(kept.batches, kept.seen, records, strict=True):
        expected: dict[tuple[int, int], float] = {}
        for part, logps in seen:  # in the order of the updates: a later pass replaces an earlier one
            if part.empty:
                continue
            for index, number in enumerate(part.rows.tolist()):
                for place in torch.nonzero(part.projected[index]).flatten().tolist():
                    gap = float(logps[index, place]) - float(batch.scores.logps[number, place])
                    expected[number, place] = torch.tensor(gap).exp().item()
        found = {
            (row["row"], place): ratio for row in rows for place, ratio in enumerate(row["ratio"]) if ratio is not None
        }
        assert found.keys() == expected.keys()
        assert found == pytest.approx(expected, rel=1e-5)
        moved += sum(abs(ratio - 1) > 1e-3 for ratio in found.values())
        assert all(len(row["ratio"]) == len(row["token_ids"]) for row in rows)
    assert moved > 10


def test_on_policy_there_is_no_ratio_to_record(tmp_path: Path) -> None:
    _, records = a_run(
        tmp_path, "dapo_top20", num_iterations=1, steps_per_generation=4, gradient_accumulation_steps=4, max_steps=1
    )
    assert records
    assert "ratio" not in records[0][0]


def test_key_token_values_are_what_credit_adds_to_the_rollout(tmp_path: Path) -> None:
    _, records = a_run(tmp_path, "ktae", max_steps=4)
    different = 0
    for row in records[0]:
        assert len(row["ktae"]) == len(row["token_ids"])
        rest = [advantage - value for advantage, value in zip(row["advantages"], row["ktae"], strict=True)]
        assert max(rest) - min(rest) < 1e-5  # what is left is the rollout's own, the same for all of its tokens
        different += len({round(value, 5) for value in row["ktae"]}) > 1
    assert different > 0


@pytest.mark.parametrize(("name", "value"), [("every", -1), ("max_completions", 0), ("alternatives", -1)])
def test_sizes_that_say_nothing_are_refused(name: str, value: int) -> None:
    with pytest.raises(UserError, match=rf"rollouts\.record\.{name} is {value}; expected"):
        RecordSection(**{name: value})


def test_a_model_whose_head_nobody_knows_trains_without_the_likeliest_tokens(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    calls = []

    def refuse(*_: Any, **given: Any) -> Any:
        calls.append(given["top"])
        raise UserError("the head of Odd alone gives other logits")

    kept = Kept(Recorder(tmp_path / "rollouts", 1, 16, [], 1000, refuse))
    with caplog.at_level(logging.WARNING, "rlvr"):
        make_trainer(tmp_path, "dapo_top20", on_rollout=kept).train()
    assert calls == [VOCABULARY], "asked once, for no more than there are"
    assert [line for line in caplog.messages if "records go without the likeliest tokens: the head of Odd" in line]
    rows = [row for path in sorted((tmp_path / "rollouts").iterdir()) for row in read_record(path)]
    assert len(rows) == 32
    assert "top_ids" not in rows[0]
