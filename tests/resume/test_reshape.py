"""Going on with other ranks, another engine or another learning rate: what goes on, what is lost, and what counts."""

import json
from pathlib import Path
from typing import Any

import pytest

from rlvr.checkpoints.manifest import verify
from rlvr.errors import UserError
from rlvr.trainer.facts import losses, moments_go_on
from rlvr.trainer.reshape import check_offered
from tests.resume.runs import ENGINES, log, ranks_of, run
from tests.trainer.tiny_run import largest_difference, make_trainer, train, weights

SAVING = {"save_strategy": "steps", "save_steps": 2}


def of(engine: str, ranks: int) -> dict[str, Any]:
    return {"engine": engine, "world_size": ranks}


@pytest.mark.parametrize(
    ("then", "now", "moments", "said"),
    [
        (of("torch", 1), of("torch", 1), True, None),
        (of("zero2", 2), of("zero2", 2), True, None),
        (
            of("torch", 2),
            of("torch", 1),
            True,
            "checkpoint-6 is of 2 processes (torch), this run has 1 (torch): weights, ",
        ),
        (of("zero2", 2), of("zero2", 4), False, "weights and prompts go on; the optimizer's moments, what is left"),
        (of("zero2", 2), of("zero3", 2), False, "this run has 2 (zero3): weights and prompts go on; the optimizer's"),
    ],
)
def test_what_is_lost_is_said(then: dict, now: dict, moments: bool, said: str | None) -> None:
    assert moments_go_on(then, now) == moments
    line = losses(then, now, 6)
    assert line is None if said is None else said in str(line)


def test_shares_that_are_not_put_together_are_refused() -> None:
    check_offered(of("fsdp", 2), of("fsdp", 2), Path("checkpoint-6"))
    with pytest.raises(UserError, match=r"has world_size=2 and engine=fsdp, this run 4 and fsdp; .* go on with the"):
        check_offered(of("fsdp", 2), of("fsdp", 4), Path("checkpoint-6"))


@pytest.mark.parametrize("name", ["learning_rate", "weight_decay"])
def test_a_rate_that_may_change_does(name: str, tmp_path: Path) -> None:
    """TRL's own resume takes the old one from the optimizer's state without a word."""
    fixed = {"learning_rate": 1e-2, "weight_decay": 0.1, "lr_scheduler_type": "linear", "max_steps": 4}
    train(tmp_path / "first", **fixed, **SAVING)
    checkpoint = tmp_path / "first/checkpoint-2"
    trainer = make_trainer(tmp_path / "next", **{**fixed, name: fixed[name] / 10})
    trainer.saver.allow = [f"settings.args.{name}"]
    trainer.train(resume_from_checkpoint=str(checkpoint))
    rates = [row["learning_rate"] for row in trainer.state.log_history if "loss" in row]
    # Linear from the base at step 0 to 0 at step 4; a row tells the rate of the step that was made.
    expected = [1e-2, 0.75e-2, 0.5e-3, 0.25e-3] if name == "learning_rate" else [1e-2, 0.75e-2, 0.5e-2, 0.25e-2]
    assert rates == pytest.approx(expected, rel=1e-12)
    decays = [group["weight_decay"] for group in trainer.optimizer.param_groups]
    assert sorted(decays) == pytest.approx([0.0, 0.01 if name == "weight_decay" else 0.1])


def test_a_rate_of_zero_has_no_scale(tmp_path: Path) -> None:
    train(tmp_path, max_steps=2, **SAVING)
    trainer = make_trainer(tmp_path, weight_decay=0.1, max_steps=3)
    trainer.saver.allow = ["settings"]
    with pytest.raises(UserError, match=r"weight_decay was 0 in the checkpoint and cannot be changed to 0\.1"):
        trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))


def test_the_library_goes_on_through_its_saver(tmp_path: Path) -> None:
    whole = train(tmp_path, max_steps=3, **SAVING)
    trainer = make_trainer(tmp_path / "next", max_steps=3)
    assert trainer.saver.resume(None) is None
    again = trainer.saver.resume(tmp_path / "checkpoint-2")
    trainer.train(resume_from_checkpoint=again)
    assert largest_difference(weights(trainer), weights(whole)) == 0


CHANGES = [("zero2", "single"), ("zero3", "ddp"), ("single", "zero3"), ("ddp", "single"), ("single", "zero2")]


def one_step_left_out(rank: int) -> None:
    """As if step 2 had not been made."""
    from rlvr.trainer.faults import Faults

    Faults.state = lambda faults: {"args": {}, "attributes": {"count": 1, "recent": [2]}}  # type: ignore[method-assign]


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("before", "after"), CHANGES)
def test_a_run_goes_on_with_another_engine_where_that_is_allowed(before: str, after: str, tmp_path: Path) -> None:
    """The weights: with a learning rate of next to nothing the checkpoint's are still there at the end."""
    from safetensors.torch import load_file

    assert before in ENGINES
    assert run(before, tmp_path, "run.steps=3", hook=one_step_left_out) == [0] * ranks_of(before), log(tmp_path)
    more = ["run.resume=auto", "run.steps=5", "optimizer.learning_rate=1e-12"]
    refused = run(after, tmp_path, *more, "run.allow_changes=[optimizer.learning_rate]")
    assert 2 in refused
    said = [line for line in log(tmp_path).splitlines() if line.startswith("rlvr: ")]
    assert any("engine" in line or "world_size" in line or "deepspeed" in line for line in said), log(tmp_path)
    allowed = "run.allow_changes=[optimizer.learning_rate,world_size,engine]"
    assert run(after, tmp_path, *more, allowed) == [0] * ranks_of(after), log(tmp_path)
    assert "the promise of an exact resume are lost" in (tmp_path / "x/log.txt").read_text()
    saved, later = (load_file(tmp_path / f"x/checkpoints/checkpoint-{step}/model.safetensors") for step in (3, 5))
    for values in (saved, later):  # tied to the embeddings; DeepSpeed's engine writes it out
        values.pop("lm_head.weight", None)
    assert saved.keys() == later.keys()
    assert largest_difference(saved, later) < 1e-9
    assert verify(tmp_path / "x/checkpoints/checkpoint-5") == []
    lines = (tmp_path / "x/metrics.jsonl").read_text().splitlines()
    assert len(lines) == 5
    state = json.loads((tmp_path / "x/checkpoints/checkpoint-5/trainer_state.json").read_text())
    assert state["stateful_callbacks"]["Faults"]["attributes"] == {"count": 1, "recent": [2]}, "remembered"
    assert '"learning_rate": 1e-12' in lines[-1]
