"""Rollouts of one process, recorded with their scores, and played to trainers on any number of ranks."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from trl import GRPOConfig

from rlvr.config.compose import compose
from rlvr.rollouts.dynamic import DynamicSection
from rlvr.trainer.algorithm import Algorithm
from rlvr.trainer.batch import RolloutBatch, Sampled, Scores, Slice
from rlvr.trainer.seam import RLVRTrainer
from tests.golden_update.feed import flat_weights
from tests.trainer.tiny import make_qwen3, make_tokenizer

ROWS, G, W, SLICES, STEPS = 32, 4, 2, 4, 4
"""Rows of a rollout batch, completions per prompt, updates of a batch, slices of a step on each rank, all updates."""

VOCABULARY = 23
PROMPTS = [{"prompt": " ".join(f"t{2 + index + word}" for word in range(1 + index % 4)), "place": index}
           for index in range(17)]  # fmt: skip
"""Of 1 to 4 tokens."""


@dataclass(frozen=True)
class Setting:
    """A named algorithm with what its file says about sampling.

    Attributes:
        algorithm: the three answers.
        group: completions per prompt: 1 where the file says so, else `G`.
        dynamic: its rounds of sampling.
    """

    algorithm: Algorithm
    group: int
    dynamic: DynamicSection

    @staticmethod
    def named(words: str) -> "Setting":
        """As `configs/algorithm/<name>.yaml` says, with what is written behind the name."""
        config: Any = compose(f"algorithm={words}".split())
        algorithm = Algorithm(config.advantage, config.selection, config.objective)
        return Setting(algorithm, 1 if config.rollouts.num_generations == 1 else G, config.rollouts.dynamic)


@dataclass
class Taken:
    """What one call of the sampler gave, over all ranks.

    Attributes:
        sampled: all rows.
        rewards: (rows, functions).
        completions: one for each row.
        prompts: one for each row.
    """

    sampled: Sampled
    rewards: Tensor
    completions: list[Any]
    prompts: list[dict[str, Any]]


@dataclass
class Tape:
    """A whole training's rollouts.

    Attributes:
        taken: by call of the sampler.
        scores: by rollout batch, rows in global order.
    """

    taken: list[Taken] = field(default_factory=list)
    scores: list[Scores] = field(default_factory=list)


def _at(scores: Scores, rows: Tensor, columns: int) -> Scores:
    """Some rows, as wide as this rank's longest; there is nothing behind the end of a row."""

    def cut(values: Tensor) -> Tensor:
        assert not values[rows][:, columns:].any()
        return values[rows][:, :columns].contiguous()

    reference = None if scores.ref_logps is None else cut(scores.ref_logps)
    return Scores(cut(scores.logps), cut(scores.entropies), reference, scores.scored[rows])


class Watched(RLVRTrainer):
    """Notes the kept mask of every rollout batch, by global row, and counts slices without rows."""

    tape: Tape
    dummies = 0

    def _generate_and_score_completions(self, inputs: Any) -> RolloutBatch:
        batch = super()._generate_and_score_completions(inputs)
        rows, lengths = batch.sampled.global_rows(self.ranks), batch.sampled.tokens.completion_mask.sum(dim=1)
        masks = vars(self).setdefault("masks", [])
        masks.append(
            {row: kept[:length].tolist() for row, kept, length in zip(rows.tolist(), batch.kept, lengths, strict=True)}
        )
        return batch

    def _compute_loss(self, model: Any, inputs: Slice) -> Tensor:
        self.dummies += inputs.empty
        return super()._compute_loss(model, inputs)


class Recording(Watched):
    """Samples and scores by itself, on one process, and keeps both."""

    def sample(self, count: int) -> tuple[Sampled, list[dict[str, Any]]]:
        sampled, rows = super().sample(count)
        self.tape.taken.append(Taken(sampled, self.rewards_per_func, list(self.completions), rows))
        return sampled, rows

    def score(self, sampled: Sampled, needed: Tensor) -> Scores:
        scores = super().score(sampled, needed)
        order = sampled.global_rows(self.ranks).argsort()
        self.tape.scores.append(_at(scores, order, scores.logps.shape[1]))
        return scores


class Played(Watched):
    """Gets its share of what was recorded in the place of sampling, and its rows' numbers in the place of scoring."""

    def sample(self, count: int) -> tuple[Sampled, list[dict[str, Any]]]:
        calls = vars(self).setdefault("calls", iter(self.tape.taken))
        taken, share = next(calls), count * self.sizes.num_generations // self.ranks.count
        mine = slice(self.ranks.index * share, (self.ranks.index + 1) * share)
        self.stream.take(count)
        self.rewards_per_func, self.completions = taken.rewards, taken.completions[mine]
        whole, at = taken.sampled.rollouts, torch.arange(mine.start, mine.stop)
        rollouts = replace(
            whole, rewards=whole.rewards[mine], verdicts=whole.verdicts[mine], token_ids=whole.token_ids[mine],
            mask=whole.mask[mine],
        )  # fmt: skip
        return Sampled(taken.sampled.tokens.rows(at), rollouts, taken.sampled.truncated[mine]), taken.prompts[mine]

    def score(self, sampled: Sampled, needed: Tensor) -> Scores:
        scores = _at(
            self.tape.scores[self.rollouts_made],
            sampled.global_rows(self.ranks),
            sampled.tokens.completion_ids.shape[1],
        )
        assert torch.equal(scores.scored, needed), "the same rows vote or train"
        return scores


def reward(completion_ids: list[list[int]], place: list[int], **_: Any) -> list[float]:
    """An odd sum of token ids is right, but every third prompt is always solved: it is not informative."""
    return [float(at % 3 == 0 or sum(ids) % 2) for ids, at in zip(completion_ids, place, strict=True)]


def save_model(folder: Path) -> Path:
    """A tiny Qwen3 of random weights with a tokenizer, for `from_pretrained`."""
    make_qwen3(VOCABULARY).save_pretrained(folder)
    make_tokenizer(VOCABULARY).save_pretrained(folder)
    return folder


def arguments(out: Path, ranks: int, learning_rate: float, **changes: Any) -> GRPOConfig:
    """Plain gradient descent without clipping: a wrong factor cannot hide."""
    fixed = {
        "use_cpu": True, "bf16": False, "gradient_checkpointing": False, "report_to": "none", "disable_tqdm": True,
        "per_device_train_batch_size": ROWS // (W * SLICES * ranks), "gradient_accumulation_steps": SLICES,
        "steps_per_generation": W * SLICES, "num_generations": G, "max_completion_length": 10, "max_steps": STEPS,
        "learning_rate": learning_rate, "lr_scheduler_type": "constant", "optim": "sgd", "max_grad_norm": 0.0,
        "logging_steps": 1, "save_strategy": "no", "seed": 3,
    }  # fmt: skip
    return GRPOConfig(str(out), **{**fixed, **changes})


def train(
    kind: Callable[..., Watched], setting: Setting, model: Path, out: Path, tape: Tape, learning_rate: float,
    ranks: int = 1, sparse: bool = True, **changes: Any,
) -> dict[str, Any]:  # fmt: skip
    """Train to the end.

    Returns:
        `engine`; `before` and `after`, all weights; this rank's `masks` by rollout batch and global row; `dummies`,
        its slices without rows; `rows` of the log.
    """
    trainer = kind(
        str(model), reward, algorithm=setting.algorithm, args=arguments(out, ranks, learning_rate, **changes),
        train_dataset=PROMPTS, group_size=setting.group, dynamic=setting.dynamic, sparse_head=sparse,
    )  # fmt: skip
    trainer.tape = tape
    before = flat_weights(trainer.model)
    trainer.train()
    return {
        "engine": type(trainer.model_wrapped).__name__,
        "before": before,
        "after": flat_weights(trainer.model),
        "masks": trainer.masks,
        "dummies": trainer.dummies,
        "rows": [row for row in trainer.state.log_history if "loss" in row],
    }
