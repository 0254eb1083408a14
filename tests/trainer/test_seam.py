"""The trainer as a whole, on a model of a few thousand weights: repeatable, resumable, and open to every algorithm."""

import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from trl import GRPOConfig

import rlvr
from rlvr.advantages.grpo import GRPO
from rlvr.errors import UserError
from rlvr.objectives.clipped import Clipped
from rlvr.rollouts.stream import PromptStream
from rlvr.selection.top_entropy import TopEntropy
from rlvr.trainer.algorithm import Algorithm
from tests.ranks import run_ranks
from tests.trainer.tiny import make_qwen3, make_tokenizer
from tests.trainer.tiny_run import (
    ITERATIONS,
    PROMPTS,
    STEPS,
    VOCABULARY,
    G,
    P,
    Recorded,
    W,
    assert_equal_weights,
    history,
    largest_difference,
    make_trainer,
    odd_sum,
    recorder,
    train,
    weights,
)

ROLLOUT_FIRST = [step for step in range(STEPS) if step % (W * ITERATIONS) == 0]


class Uninterrupted:
    """A training with a checkpoint after every step, and what its callback saw."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.calls: Recorded = []
        trainer = train(folder, on_rollout=recorder(self.calls), save_strategy="steps", save_steps=1)
        self.trainer, self.weights, self.history = trainer, weights(trainer), history(trainer)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Uninterrupted:
    return Uninterrupted(tmp_path_factory.mktemp("whole"))


def test_training_moves_the_weights_and_learns_from_informative_groups(whole: Uninterrupted) -> None:
    assert largest_difference(whole.weights, make_qwen3(VOCABULARY).state_dict()) > 1e-3
    assert [row["step"] for row in whole.history] == list(range(1, STEPS + 1))
    assert any(row["loss"] != 0 for row in whole.history)
    assert all(math.isfinite(row["loss"]) for row in whole.history)


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(whole: Uninterrupted, tmp_path: Path) -> None:
    again = train(tmp_path)
    assert_equal_weights(weights(again), whole.weights)
    assert history(again) == whole.history
    assert largest_difference(weights(train(tmp_path, seed=4)), whole.weights) > 1e-3


@pytest.mark.parametrize("step", range(1, STEPS))
def test_a_resumed_run_is_the_run_bit_for_bit(step: int, whole: Uninterrupted, tmp_path: Path) -> None:
    """Steps 1-3 and 5-7 stop inside a rollout batch, step 4 between two; the second rollout starts a new epoch."""
    resumed = train(tmp_path, resume=whole.folder / f"checkpoint-{step}")
    assert history(resumed) == whole.history
    assert_equal_weights(weights(resumed), whole.weights)
    assert resumed.stream.state_dict() == whole.trainer.stream.state_dict()


def test_a_checkpoint_of_another_seed_or_without_state_is_refused(whole: Uninterrupted, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="seed=3, this run seed=4"):
        train(tmp_path, resume=whole.folder / "checkpoint-2", seed=4)
    bare = tmp_path / "checkpoint-2"
    shutil.copytree(whole.folder / "checkpoint-2", bare)
    (bare / "rlvr_state_0.pt").unlink()
    with pytest.raises(UserError, match=r"damaged \(rlvr_state_0\.pt: missing"):
        train(tmp_path, resume=bare)


def test_rollout_metrics_stand_only_in_a_rollouts_first_row(whole: Uninterrupted) -> None:
    for step, row in enumerate(whole.history):
        first = step in ROLLOUT_FIRST
        for name in ("reward", "entropy", "selection/kept_fraction", "selection/candidates", "frac_reward_zero_std"):
            assert (name in row) == first, f"{name} in row {step}"
        assert row["rollout_step"] == step // (W * ITERATIONS) + 1
        assert "clip_ratio/region_mean" in row
        assert row["epoch"] == pytest.approx(row["rollout_step"] * P / len(PROMPTS))
    assert {"selection/threshold", "selection/entropy_kept", "selection/entropy_dropped"} <= set(whole.history[0])


def test_the_kept_fraction_is_a_fifth_rounded_up(whole: Uninterrupted) -> None:
    for step in ROLLOUT_FIRST:
        row, batch = whole.history[step], whole.calls[step // (W * ITERATIONS)][0]
        candidates = int(batch.candidates.sum())
        assert row["selection/candidates"] == candidates > 0
        assert row["selection/kept_fraction"] == math.ceil(candidates / 5) / candidates
        assert int(batch.kept.sum()) == math.ceil(candidates / 5)
        assert row["selection/entropy_kept"] > row["selection/threshold"] > row["selection/entropy_dropped"]


def test_the_first_step_of_a_rollout_clips_nothing(whole: Uninterrupted) -> None:
    assert whole.history[0]["clip_ratio/region_mean"] == 0
    assert any(row["clip_ratio/region_mean"] > 0 for row in whole.history)


def test_the_callback_sees_every_rollout_with_its_prompts_in_stream_order(whole: Uninterrupted) -> None:
    assert len(whole.calls) == STEPS // (W * ITERATIONS)
    stream = PromptStream(PROMPTS, seed=3)
    for batch, rows in whole.calls:
        assert rows == [prompt for prompt in stream.take(P) for _ in range(G)]
        tokenizer = make_tokenizer(VOCABULARY)
        prompts = tokenizer.batch_decode(batch.sampled.tokens.prompt_ids, skip_special_tokens=True)
        assert prompts == [row["prompt"].replace(" ", "") for row in rows]


def test_the_reward_of_a_row_is_that_of_its_completion(whole: Uninterrupted) -> None:
    for batch, _ in whole.calls:
        tokens = batch.sampled.tokens
        sums = (tokens.completion_ids * tokens.completion_mask).sum(dim=1)
        assert torch.equal(batch.sampled.rollouts.rewards, (sums % 2).float())
        last = tokens.completion_ids.gather(1, tokens.completion_mask.sum(dim=1, keepdim=True) - 1).squeeze(1)
        assert torch.equal(batch.sampled.truncated, last > 1), "tokens 0 and 1 end a completion"
        assert 0 < batch.sampled.truncated.sum() < P * G


def door(folder: Path, data: Any) -> Any:
    """The trainer as a library, in a few lines."""
    args = GRPOConfig(
        str(folder), use_cpu=True, bf16=False, report_to="none", per_device_train_batch_size=8, num_generations=4,
        max_completion_length=6, max_steps=2, learning_rate=1e-2, save_strategy="no", logging_steps=1,
        disable_tqdm=True,
    )  # fmt: skip
    trainer = rlvr.RLVRTrainer(
        model=make_qwen3(VOCABULARY), reward_funcs=odd_sum, algorithm="dapo_top20", args=args, train_dataset=data,
        processing_class=make_tokenizer(VOCABULARY),
    )  # fmt: skip
    trainer.train()
    return trainer


def test_a_row_that_only_an_unpaid_reward_scored_has_no_credit(tmp_path: Path) -> None:
    """The paid reward says 1 or nothing, so no group has rewards that differ; a 0 for nothing would make one."""

    def paid(completion_ids: list[list[int]], **_: Any) -> list[float | None]:
        return [1.0 if sum(ids) % 2 else None for ids in completion_ids]

    calls: Recorded = []
    trainer = make_trainer(
        tmp_path, "grpo", reward_funcs=[paid, odd_sum], reward_weights=[1.0, 0.0], on_rollout=recorder(calls),
        max_steps=1,
    )  # fmt: skip
    trainer.train()
    rewards = calls[0][0].sampled.rollouts.rewards
    assert 0 < int(rewards.isnan().sum()) < len(rewards)
    assert rewards[~rewards.isnan()].eq(1).all()
    assert calls[0][0].advantages.eq(0).all()


def test_the_library_door_takes_a_list_and_a_dataset(tmp_path: Path) -> None:
    from_list, from_dataset = door(tmp_path, PROMPTS), door(tmp_path, Dataset.from_list(PROMPTS))
    assert from_list.state.global_step == 2
    assert from_list.algorithm.selection == TopEntropy(keep=0.2, candidates="informative")
    assert_equal_weights(weights(from_list), weights(from_dataset))


def with_kl() -> Algorithm:
    return Algorithm(GRPO(), TopEntropy(keep=0.2), Clipped(beta=0.1))


def test_a_kl_term_starts_at_zero_and_pulls_to_the_reference(tmp_path: Path) -> None:
    calls: Recorded = []
    trainer = train(tmp_path, with_kl(), on_rollout=recorder(calls))
    divergences = [row["kl"] for row in history(trainer)]
    assert divergences[0] == pytest.approx(0.0, abs=1e-6)
    assert min(divergences[1:]) > 1e-6
    first, second = (batch.scores for batch, _ in calls)
    torch.testing.assert_close(first.ref_logps, first.logps, rtol=0, atol=1e-5)
    assert not torch.allclose(second.ref_logps, second.logps, rtol=0, atol=1e-3)


def test_an_adapter_is_its_own_reference_when_switched_off(tmp_path: Path) -> None:
    from peft import LoraConfig

    config = LoraConfig(r=2, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    calls: Recorded = []
    trainer = train(tmp_path, with_kl(), peft_config=config, learning_rate=0.1, on_rollout=recorder(calls))
    assert trainer.ref_model is None
    divergences = [row["kl"] for row in history(trainer)]
    assert divergences[0] == pytest.approx(0.0, abs=1e-6)
    assert max(divergences) > 1e-6
    base = make_qwen3(VOCABULARY).state_dict()
    after = {name.replace("base_model.model.", "").replace(".base_layer", ""): value
             for name, value in weights(trainer).items()}  # fmt: skip
    assert all(torch.equal(after[name], base[name]) for name in base)
    adapters = [value for name, value in after.items() if "lora_B" in name]
    assert adapters
    assert all(float(value.abs().max()) > 0 for value in adapters)
    second = calls[1][0].scores
    assert not torch.equal(second.ref_logps, second.logps)


def test_gradient_checkpointing_changes_memory_only(whole: Uninterrupted, tmp_path: Path) -> None:
    trainer = train(tmp_path, gradient_checkpointing=True)
    assert trainer.model.is_gradient_checkpointing
    assert largest_difference(weights(trainer), whole.weights) < 1e-5


def test_the_dense_head_gives_the_same_weights(whole: Uninterrupted, tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path)
    trainer.sparse_head = False
    trainer.train()
    assert largest_difference(weights(trainer), whole.weights) < 1e-4


@pytest.mark.parametrize("scope", ["micro_batch", "micro_batch_all_ranks", "group", "sequence"])
def test_every_scope_trains(scope: str, tmp_path: Path) -> None:
    trainer = train(tmp_path, Algorithm(GRPO(), TopEntropy(keep=0.2, scope=scope), Clipped()), max_steps=4)
    rows = history(trainer)
    assert largest_difference(weights(trainer), make_qwen3(VOCABULARY).state_dict()) > 1e-3
    inside = scope.startswith("micro_batch")
    assert ["selection/kept_fraction" in row for row in rows] == ([True] * 4 if inside else [True, *[False] * 3])
    assert all(0.2 <= row["selection/kept_fraction"] < 0.35 for row in rows[:1])


def test_unsupported_features_are_refused_before_a_model_is_touched(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="eval_dataset= is a TRL feature"):
        rlvr.RLVRTrainer("/nowhere", odd_sum, train_dataset=PROMPTS, eval_dataset=PROMPTS)
    with pytest.raises(UserError, match=r"args\.beta is 0\.1"):
        make_trainer(tmp_path, beta=0.1)


def test_two_ranks_train_and_end_with_equal_weights(tmp_path: Path) -> None:
    def on_rank(rank: int) -> dict:
        trainer = train(tmp_path / str(rank), ranks=2)
        return {
            "engine": type(trainer.model_wrapped).__name__,
            "rewards": [row["reward"] for row in history(trainer) if "reward" in row],
            "kept": [row["selection/kept_fraction"] for row in history(trainer) if "reward" in row],
            "weights": {name: value.numpy() for name, value in weights(trainer).items()},
        }

    first, second = run_ranks(2, on_rank)
    assert first["engine"] == "DistributedDataParallel"
    assert len(first["rewards"]) == 2
    tensors = [{name: torch.from_numpy(value) for name, value in each["weights"].items()} for each in (first, second)]
    assert_equal_weights(*tensors)
    assert largest_difference(tensors[0], make_qwen3(VOCABULARY).state_dict()) > 1e-3
