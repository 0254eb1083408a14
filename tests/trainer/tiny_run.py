"""Real trainings of a few thousand weights: 5 prompts, groups of 4, 2 updates of 2 slices, 2 iterations."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from trl import GRPOConfig

from rlvr.trainer.algorithm import Algorithm, named_algorithm
from rlvr.trainer.seam import RLVRTrainer
from tests.trainer.tiny import make_qwen3, make_tokenizer

P, G, W, ITERATIONS, STEPS, MICRO = 4, 4, 2, 2, 8, 4
VOCABULARY = 23
PROMPTS = [{"prompt": f"t{index} t{index + 1}", "gold": f"t{index}"} for index in range(2, 7)]
OWN = (
    "train_dataset",
    "on_rollout",
    "peft_config",
    "correct_sampler",
    "record_scores",
    "group_size",
    "dynamic",
    "sparse_head",
)
TIMES = ("seconds/", "step_time", "train_runtime", "train_samples_per_second", "train_steps_per_second", "total_flos")


def odd_sum(completion_ids: list[list[int]], **_: Any) -> list[float]:
    """1 where the sampled token ids have an odd sum: half of all completions, so that most groups are informative."""
    return [float(sum(ids) % 2) for ids in completion_ids]


def arguments(folder: Path, ranks: int = 1, **changes: Any) -> GRPOConfig:
    """TRL's arguments with the sizes above, and AdamW steps large enough to change what is sampled."""
    rows = P * G // (W * ranks)
    micro = MICRO // ranks
    fixed = {
        "use_cpu": True, "bf16": False, "gradient_checkpointing": False, "report_to": "none", "disable_tqdm": True,
        "per_device_train_batch_size": micro, "gradient_accumulation_steps": rows // micro,
        "steps_per_generation": W * rows // micro, "num_iterations": ITERATIONS, "num_generations": G,
        "max_completion_length": 8, "max_steps": STEPS, "learning_rate": 1e-2, "lr_scheduler_type": "constant",
        "logging_steps": 1, "save_strategy": "no", "seed": 3,
    }  # fmt: skip
    return GRPOConfig(str(folder), **{**fixed, **changes})


def algorithm_of(given: Any) -> Algorithm:
    """The algorithm itself, where its name was given."""
    return named_algorithm(given) if isinstance(given, str) else given


def make_trainer(folder: Path, algorithm: Any = "dapo_top20", ranks: int = 1, **changes: Any) -> RLVRTrainer:
    """A trainer of fresh weights; `changes` go to the trainer where it knows them, else to TRL's arguments."""
    own = {name: changes.pop(name) for name in OWN if name in changes}
    model = make_qwen3(VOCABULARY)
    if algorithm_of(algorithm).objective.beta > 0:  # TRL loads the reference from where the model came from
        model.save_pretrained(folder / "model")
        model = str(folder / "model")
    return RLVRTrainer(
        model, changes.pop("reward_funcs", odd_sum), algorithm=algorithm, args=arguments(folder, ranks, **changes),
        processing_class=make_tokenizer(VOCABULARY), **{"train_dataset": PROMPTS, **own},
    )  # fmt: skip


def weights(trainer: RLVRTrainer) -> dict[str, Tensor]:
    """A copy of all weights by name."""
    return {name: values.detach().clone() for name, values in trainer.model.state_dict().items()}


def history(trainer: RLVRTrainer) -> list[dict[str, float]]:
    """The rows of the optimizer steps, without times."""
    rows = [row for row in trainer.state.log_history if "loss" in row]
    return [{name: value for name, value in row.items() if not name.startswith(TIMES)} for row in rows]


def train(folder: Path, algorithm: Any = "dapo_top20", resume: Path | None = None, **changes: Any) -> RLVRTrainer:
    """Train to the end and return the trainer."""
    trainer = make_trainer(folder, algorithm, **changes)
    trainer.train(resume_from_checkpoint=None if resume is None else str(resume))
    return trainer


def assert_equal_weights(first: dict[str, Tensor], second: dict[str, Tensor]) -> None:
    """Bit for bit."""
    assert first.keys() == second.keys()
    assert [name for name in first if not torch.equal(first[name], second[name])] == []


def largest_difference(first: dict[str, Tensor], second: dict[str, Tensor]) -> float:
    """Over all weights."""
    return max(float((first[name] - second[name]).abs().max()) for name in first)


Recorded = list[tuple[Any, list[dict[str, Any]]]]


def recorder(calls: Recorded) -> Callable[..., None]:
    """An `on_rollout` that keeps what it was called with."""
    return lambda trainer, batch, rows: calls.append((batch, rows))
