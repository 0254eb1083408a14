"""Not a number, in one process: the step is left out as if it had never been, and too many of them end the run."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from rlvr.errors import UserError
from rlvr.maths.finite import all_finite, first_not_finite
from rlvr.trainer.faults import too_many
from tests.faults.faulty import NAN, Poison, Undone, poison_gradient, poison_loss, said
from tests.trainer.tiny_run import assert_equal_weights, history, make_trainer, weights

NORM = "model.layers.1.post_attention_layernorm.weight"


def trained(folder: Path, poison: Poison | None = None, **changes: Any) -> tuple[Any, list[str]]:
    trainer = make_trainer(folder, max_steps=4, lr_scheduler_type="linear", **changes)
    if poison is not None:
        poison(trainer)
    lines = said(trainer)
    trainer.train()
    return trainer, lines


def test_which_numbers_are_found() -> None:
    fine, wrong = torch.tensor([1e38, -3e38]), torch.tensor([0.0, math.inf, NAN])
    assert all_finite([])
    assert all_finite([fine, torch.empty(0)]), "a norm of order two would overflow"
    assert not all_finite([fine, wrong])
    assert not all_finite([torch.tensor(NAN), fine])
    assert not all_finite([torch.tensor(-math.inf, dtype=torch.bfloat16), fine])
    named = [("none", None), ("ids", torch.tensor([1])), ("fine", fine), ("wrong", wrong), ("later", wrong)]
    assert first_not_finite(named) == "wrong"
    assert first_not_finite(named[:3]) is None


@pytest.mark.parametrize(
    ("skipped", "step", "reason"),
    [
        ([5], 5, None),
        ([5, 6, 7], 7, None),  # three in a row may be one bad batch that is used three times
        ([5, 6, 7, 8], 8, "4 in a row"),
        ([1, 2, 3, 4], 4, "4 in a row"),
        ([5, 6, 8], 8, "3 of the last 8 steps"),
        ([100, 200], 200, None),
        ([100, 200, 299], 299, "3 of the last 200 steps"),
        ([100, 200, 300], 300, None),  # step 100 is the 201st last
        ([100, 298, 299, 300], 300, None),
        ([200, 298, 299, 300], 300, "4 of the last 200 steps"),
        ([1, 900, 1000], 1000, None),
    ],
)
def test_when_a_run_ends(skipped: list[int], step: int, reason: str | None) -> None:
    assert too_many(skipped, step) == reason


@pytest.fixture(scope="module")
def without_the_second_step(tmp_path_factory: pytest.TempPathFactory) -> Any:
    trainer = make_trainer(tmp_path_factory.mktemp("undone"), max_steps=4, lr_scheduler_type="linear")
    trainer.add_callback(Undone(2))
    trainer.train()
    return trainer


@pytest.mark.parametrize(
    ("poison", "found"),
    [
        (lambda trainer: poison_loss(trainer, [2]), "the loss of slice 0 is not finite, first in log_probs"),
        (
            lambda trainer: poison_gradient(trainer, [2], NORM),
            f"the gradient is not finite, first that of {NORM}",
        ),
    ],
    ids=["loss", "gradient"],
)
def test_a_step_is_left_out_as_if_it_had_never_been(
    poison: Poison, found: str, without_the_second_step: Any, tmp_path: Path
) -> None:
    trainer, lines = trained(tmp_path, poison)
    assert_equal_weights(weights(trainer), weights(without_the_second_step))
    optimizers = [one.optimizer.state_dict()["state"] for one in (trainer, without_the_second_step)]
    assert optimizers[0].keys() == optimizers[1].keys()
    for mine, other in zip(optimizers[0].values(), optimizers[1].values(), strict=True):
        assert {name: float(mine[name].sum()) for name in mine} == {name: float(other[name].sum()) for name in other}
        assert float(mine["step"]) == 3
    rows, others = history(trainer), history(without_the_second_step)
    assert [row["faults/skipped_steps"] for row in rows] == [0, 1, 1, 1]
    assert [row["learning_rate"] for row in rows] == [row["learning_rate"] for row in others]
    assert rows[2:] == [{**row, "faults/skipped_steps": 1} for row in others[2:]]
    assert all(math.isfinite(row["loss"]) for row in rows)
    (line,) = lines
    assert line == f"step 2: on rank 0 {found}; no rank makes this step, weights and moments stay as they are"


def test_repeated_faults_end_the_run_with_the_slices_on_the_disk(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, max_steps=8)
    poison_loss(trainer, range(3, 9), slices=[0])
    lines = said(trainer)
    expected = r"step 6: on rank 0 the loss of slice 0 .* first in log_probs; 4 in a row were left out, so the run ends"
    with pytest.raises(UserError, match=expected):
        trainer.train()
    assert len(lines) == 3
    (path,) = (tmp_path / "faults").iterdir()
    assert path.name == "step_000006_rank_0.pt"
    stored = torch.load(path, weights_only=True)
    assert (stored["step"], stored["rank"]) == (6, 0)
    part, _ = stored["slices"]
    assert {"prompt_ids", "completion_ids", "completion_mask", "rows", "projected", "kept", "advantages"} <= part.keys()
    assert part["completion_ids"].shape == part["kept"].shape
    assert all(values.isfinite().all() for values in weights(trainer).values())


def test_a_resume_remembers_what_was_left_out(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, max_steps=3, save_strategy="steps", save_steps=3)
    poison_loss(trainer, [1, 3])
    said(trainer)
    trainer.train()
    resumed = make_trainer(tmp_path, max_steps=8)
    poison_loss(resumed, [5])
    said(resumed)
    with pytest.raises(UserError, match=r"step 5: .* 3 of the last 5 steps were left out"):
        resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    assert (resumed.faults.count, resumed.faults.recent) == (3, [1, 3, 5])


@pytest.mark.parametrize("scope", ["rollout", "micro_batch"])
def test_a_selection_inside_the_loss_does_not_raise_first(scope: str, tmp_path: Path) -> None:
    from rlvr.objectives.clipped import Clipped
    from rlvr.selection.top_entropy import TopEntropy
    from rlvr.trainer.algorithm import Algorithm

    trainer = make_trainer(tmp_path, Algorithm(selection=TopEntropy(scope=scope), objective=Clipped()), max_steps=2)
    right = trainer._loss_numbers

    def wrong(model: Any, part: Any) -> Any:
        logps, entropies, terms = right(model, part)
        bad = trainer.state.global_step == 0 and not part.empty and entropies is not None
        return logps * (NAN if bad else 1), entropies * NAN if bad else entropies, terms

    trainer._loss_numbers = wrong
    lines = said(trainer)
    trainer.train()
    assert len(lines) == 1
