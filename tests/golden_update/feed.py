"""Train on the recorded batch with the real trainer, whatever the ranks, the slices and the engine."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from trl import GRPOConfig

from rlvr.advantages.constant import Constant
from rlvr.maths.rollouts import Rollouts
from rlvr.objectives.clipped import Clipped
from rlvr.objectives.entropy import Entropy
from rlvr.selection.all_tokens import AllTokens
from rlvr.selection.top_entropy import TopEntropy
from rlvr.trainer.algorithm import Algorithm
from rlvr.trainer.batch import RolloutBatch, Sampled, Scores
from rlvr.trainer.forward import Tokens
from rlvr.trainer.seam import RLVRTrainer
from tests.golden_update.reference import LEARNING_RATE, G, P, T
from tests.golden_update.scenarios import scenario

HERE = Path(__file__).parent
RECORDED = dict(np.load(HERE / "batch.npz"))
EXPECTED = dict(np.load(HERE / "expected.npz"))
TOLERANCE = 1e-5


def save_model(folder: Path) -> Path:
    """The recorded weights as a checkpoint with a tokenizer, for `from_pretrained`."""
    from tests.golden_update.record import make_model
    from tests.trainer.tiny import make_tokenizer

    model = make_model()
    model.load_state_dict({name: torch.from_numpy(value) for name, value in np.load(HERE / "weights.npz").items()})
    model.save_pretrained(folder)
    make_tokenizer(model.config.vocab_size).save_pretrained(folder)
    return folder


def algorithm_of(settings: dict[str, Any]) -> Algorithm:
    """The package's algorithm for a scenario."""
    shared = {"candidates": settings["candidates"], "normalizer": settings["normalizer"]}
    selection = AllTokens(**shared) if settings["keep"] == 1 else TopEntropy(keep=settings["keep"], **shared)
    names = ["beta", "reduction", "mask_truncated"]
    if settings["objective"] == "entropy":
        numbers = {name: settings[name] for name in [*names, "temperature"]}
        return Algorithm(Constant(), selection, Entropy(**numbers))
    numbers = {name: settings[name] for name in [*names, "epsilon", "epsilon_high", "dual_clip"]}
    return Algorithm(selection=selection, objective=Clipped(**numbers))


class FedTrainer(RLVRTrainer):
    """The trainer with the recorded batch in the place of generation and scoring."""

    settings: dict[str, Any]

    def _generate_and_score_completions(self, inputs: Any) -> RolloutBatch:
        rows = self.sizes.rows_per_rank
        mine = slice(self.ranks.index * rows, (self.ranks.index + 1) * rows)
        recorded = {name: torch.from_numpy(values[mine]) for name, values in RECORDED.items()}
        rewards = torch.from_numpy(RECORDED[self.settings["rewards"]])
        mask = recorded["completion_mask"].long()
        tokens = Tokens(recorded["prompt_ids"], recorded["prompt_mask"].long(), recorded["completion_ids"], mask)
        rollouts = Rollouts(rewards[mine], rewards, rewards[mine], G, recorded["completion_ids"], mask.bool())
        scores = Scores(
            recorded[self.settings["old"]], recorded["entropies"],
            recorded["ref_logps"] if self.settings["beta"] else None, torch.ones(len(mask), dtype=torch.bool),
        )  # fmt: skip
        self.rollouts_made += 1
        return self._decide(Sampled(tokens, rollouts, recorded["truncated"]), scores)


class DividesAgain(FedTrainer):
    """A control that must fail: the loss divided once more by the accumulation."""

    def _compute_loss(self, model: Any, inputs: Any) -> torch.Tensor:
        return super()._compute_loss(model, inputs) / self.args.gradient_accumulation_steps


class DummyPastTheEngine(FedTrainer):
    """A control that must fail: the dummy row goes round the engine that counts passes and gathers weights."""

    def _compute_loss(self, model: Any, inputs: Any) -> torch.Tensor:
        return super()._compute_loss(self.model if inputs.empty else model, inputs)


def run(
    name: str, model: Path, out: Path, micro_batch_rows: int, sparse: bool = True, ranks: int = 1,
    trainer_class: type[FedTrainer] = FedTrainer, **extra: Any,
) -> dict:  # fmt: skip
    """Train through the recorded batch once; returns losses and the flattened change of the weights."""
    settings = scenario(name)
    rows = P * G // (settings["updates"] * ranks)
    args = GRPOConfig(
        str(out), use_cpu=True, bf16=False, gradient_checkpointing=False, per_device_train_batch_size=micro_batch_rows,
        gradient_accumulation_steps=rows // micro_batch_rows,
        steps_per_generation=settings["updates"] * rows // micro_batch_rows, num_iterations=settings["iterations"],
        num_generations=G, max_completion_length=T, max_steps=settings["updates"] * settings["iterations"],
        learning_rate=LEARNING_RATE, lr_scheduler_type="constant", optim="sgd", max_grad_norm=0.0, logging_steps=1,
        save_strategy="no", report_to="none", disable_tqdm=True, **extra,
    )  # fmt: skip
    trainer = trainer_class(
        str(model), lambda completions, **_: [0.0] * len(completions), algorithm=algorithm_of(settings), args=args,
        train_dataset=[{"prompt": "x"}], sparse_head=sparse,
    )  # fmt: skip
    trainer.settings = settings
    before = flat_weights(trainer.model)
    trainer.train()
    losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    return {
        "losses": losses,
        "update": before - flat_weights(trainer.model),
        "engine": type(trainer.model_wrapped).__name__,
    }


def flat_weights(model: Any) -> np.ndarray:
    """All weights in the order of their names, gathered from ZeRO-3's shards where there are any."""
    parameters = dict(sorted(model.named_parameters()))
    if any(hasattr(parameter, "ds_id") for parameter in parameters.values()):
        import deepspeed

        with deepspeed.zero.GatheredParameters(list(parameters.values())):
            return _concatenate(parameters)
    return _concatenate(parameters)


def _concatenate(parameters: dict[str, Any]) -> np.ndarray:
    return np.concatenate([parameter.detach().double().numpy().ravel().copy() for parameter in parameters.values()])


def error(name: str, result: dict[str, Any]) -> float:
    """Relative L2 distance of the weights' change from the float64 reference; absolute where nothing should move."""
    last = max(int(key.rsplit("_", 1)[1]) for key in EXPECTED if key.startswith(f"{name}/update_"))
    expected = EXPECTED[f"{name}/update_{last}"]
    distance = float(np.linalg.norm(result["update"] - expected))
    return distance / (float(np.linalg.norm(expected)) or 1.0)
