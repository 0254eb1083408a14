"""Not a number on one of two ranks: no rank makes the step, whatever the engine; later steps are as if it never was."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from trl import GRPOConfig

from rlvr.errors import UserError
from rlvr.launch.status import Disagreement
from tests.faults.faulty import Undone, poison_gradient, poison_loss, said
from tests.golden_update.feed import FedTrainer, algorithm_of, flat_weights, save_model
from tests.golden_update.reference import G, P, T
from tests.golden_update.scenarios import scenario
from tests.golden_update.test_zero import zero_config
from tests.ranks import run_ranks

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

SETTINGS = scenario("top20_two_updates")
STEPS, BAD = 5, 2
NORM = "model.layers.0.post_attention_layernorm.weight"


def fed_trainer(model: Path, out: Path, ranks: int = 1, **extra: Any) -> FedTrainer:
    """Steps on the recorded batch by AdamW, whose moments would remember a wrong step, with two slices each."""
    rows = P * G // (SETTINGS["updates"] * ranks)
    given = {"max_steps": STEPS, "lr_scheduler_type": "linear", **extra}
    args = GRPOConfig(
        str(out), use_cpu=True, bf16=False, gradient_checkpointing=False, per_device_train_batch_size=rows // 2,
        gradient_accumulation_steps=2, steps_per_generation=SETTINGS["updates"] * 2, num_generations=G,
        max_completion_length=T, learning_rate=1e-2, optim="adamw_torch", max_grad_norm=0.2, logging_steps=1,
        save_strategy="no", report_to="none", disable_tqdm=True, logging_nan_inf_filter=False, **given,
    )  # fmt: skip
    trainer = FedTrainer(
        str(model), lambda completions, **_: [0.0] * len(completions), algorithm=algorithm_of(SETTINGS), args=args,
        train_dataset=[{"prompt": "x"}],
    )  # fmt: skip
    trainer.settings = SETTINGS
    return trainer


def trained(trainer: FedTrainer) -> dict[str, Any]:
    before, lines = flat_weights(trainer.model), said(trainer)
    trainer.train()
    rows = [row for row in trainer.state.log_history if "loss" in row]
    names = ("loss", "learning_rate", "faults/skipped_steps")
    return {
        "update": flat_weights(trainer.model) - before,
        "said": lines,
        "engine": type(trainer.model_wrapped).__name__,
        **{name: [row[name] for row in rows] for name in names},
    }


SOAK = os.environ.get("RLVR_SOAK") == "1"
ENGINES: dict[str, dict[str, Any]] = {
    "ddp": {},
    "zero1": {"deepspeed": zero_config(1)},
    "zero2": {"deepspeed": zero_config(2)},
    "zero3": {"deepspeed": zero_config(3)},
    "zero3_offload": {
        "deepspeed": {
            **zero_config(3),
            "zero_force_ds_cpu_optimizer": False,
            "zero_optimization": {**zero_config(3)["zero_optimization"], "offload_optimizer": {"device": "cpu"}},
        }
    },
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("weights") / "model")


@pytest.fixture(scope="module")
def undone(model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    trainer = fed_trainer(model, tmp_path_factory.mktemp("undone"))
    trainer.add_callback(Undone(BAD))
    return trained(trainer)


@pytest.mark.parametrize("engine", list(ENGINES) if SOAK else ["ddp", "zero2", "zero3"])
def test_no_rank_makes_the_step(
    engine: str, model: Path, undone: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    extra = ENGINES[engine]

    def on_rank(rank: int) -> Any:
        if extra:
            import deepspeed

            deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
            deepspeed.init_distributed(dist_backend="gloo", auto_mpi_discovery=False)
        out = tmp_path / str(rank)
        by_loss = fed_trainer(model, out, 2, **extra)
        poison_loss(by_loss, [BAD], slices=[0], rank=1)
        by_gradient = fed_trainer(model, out, 2, **extra)
        poison_gradient(by_gradient, [BAD], NORM, rank=1)
        results = [trained(by_loss), trained(by_gradient), trained(fed_trainer(model, out, 2, **extra))]
        ends = fed_trainer(model, tmp_path / "shared", 2, **extra)
        poison_loss(ends, range(1, 6), slices=[0], rank=1)
        with pytest.raises(UserError) as error:
            trained(ends)
        assert type(error.value) is Disagreement
        return results, str(error.value)

    ranks = run_ranks(2, on_rank, timeout=400)
    for (by_loss, by_gradient, clean), message in ranks:
        expected = undone["update"]
        for result in (by_loss, by_gradient):
            assert result["engine"] == ("DeepSpeedEngine" if extra else "DistributedDataParallel")
            assert result["faults/skipped_steps"] == [0, 1, 1, 1, 1]
            assert result["learning_rate"] == pytest.approx(undone["learning_rate"])
            assert np.isfinite(result["loss"]).all()
            distance = np.linalg.norm(result["update"] - expected) / np.linalg.norm(expected)
            assert distance < 1e-4, f"{distance:.1e}"
        assert np.array_equal(by_loss["update"], by_gradient["update"])
        assert np.linalg.norm(clean["update"] - expected) > 0.1 * np.linalg.norm(expected)
        assert "step 4: on rank 1 the loss of slice 0 is not finite, first in log_probs; 4 in a row" in message
    lead, other = (results for results, _ in ranks)
    assert lead[0]["said"] == [
        f"step {BAD}: on rank 1 the loss of slice 0 is not finite, first in log_probs; no rank makes this step, "
        "weights and moments stay as they are"
    ]
    where = lead[1]["said"][0]
    assert f"first that of {NORM}" in where or "parameter group" in where, where
    assert other[0]["said"] == other[1]["said"] == []
    files = sorted((tmp_path / "shared" / "faults").iterdir())
    assert [path.name for path in files] == ["step_000004_rank_0.pt", "step_000004_rank_1.pt"]
    assert torch.load(files[0], weights_only=True)["found"] is None
    assert torch.load(files[1], weights_only=True)["found"].startswith("the loss of slice 0")
