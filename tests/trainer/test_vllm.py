"""Generation by a separate sampler, with a stand-in for TRL's vLLM back end that returns recorded ids and log-probs."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
import trl.trainer.grpo_trainer as grpo

from rlvr.errors import UserError
from rlvr.maths.importance import MODES, sampler_weights
from rlvr.trainer.loss import cut_slice
from rlvr.trainer.seam import RLVRTrainer
from tests.trainer import tiny_run
from tests.trainer.tiny_run import VOCABULARY, Recorded, history, recorder

NOISE = 0.4
UNKNOWN = 5
"""Every so many tokens the sampler gives no log-probability, as vLLM does where it is NaN."""


class RecordedSampler:
    """Has what TRL's trainer uses of `VLLMGeneration`: recorded completions with the log-probs of a noisy policy."""

    def __init__(self, model: Any, mode: str, temperature: float, logprobs: int, **settings: Any) -> None:
        assert logprobs == 0, "only the sampled token's log-probability is needed"
        self.model, self.mode, self.temperature, self.settings = model, mode, temperature, settings
        self.syncs, self.asked = 0, []
        self.generator = torch.Generator().manual_seed(0)

    def sync_weights(self) -> None:
        self.syncs += 1

    def generate(self, prompts: list[list[int]], images: Any, num_generations: int, profiler: Any) -> tuple:
        if self.mode == "server":  # a server gets each prompt once and answers with all its completions in order
            unique = prompts[::num_generations]
            prompts = [prompt for prompt in unique for _ in range(num_generations)]
        self.asked.append(len(prompts))
        completions = [self._ids() for _ in prompts]
        logps = [self._logps(prompt, ids) for prompt, ids in zip(prompts, completions, strict=True)]
        return prompts, completions, [[[value] for value in row] for row in logps], None

    def _ids(self) -> list[int]:
        length = int(torch.randint(1, 8, (), generator=self.generator))
        return [*torch.randint(2, VOCABULARY, (length,), generator=self.generator).tolist(), 1]

    def _logps(self, prompt: list[int], ids: list[int]) -> list[float | None]:
        with torch.no_grad():
            logits = self.model(input_ids=torch.tensor([prompt + ids])).logits[0, len(prompt) - 1 : -1]
        logps = torch.log_softmax(logits / self.temperature, dim=-1)[torch.arange(len(ids)), ids]
        noisy = logps + NOISE * torch.randn(len(ids), generator=self.generator)
        return [None if index % UNKNOWN == UNKNOWN - 1 else float(value) for index, value in enumerate(noisy)]


@pytest.fixture(autouse=True)
def _recorded_sampler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grpo, "VLLMGeneration", RecordedSampler)


def train(folder: Path, **changes: Any) -> tuple[RLVRTrainer, Recorded]:
    calls: Recorded = []
    trainer = tiny_run.make_trainer(folder, use_vllm=True, on_rollout=recorder(calls), **changes)
    trainer.train()
    return trainer, calls


@pytest.mark.parametrize("mode", ["colocate", "server"])
def test_both_vllm_modes_train_and_get_the_weights_once_a_rollout(mode: str, tmp_path: Path) -> None:
    trainer, calls = train(tmp_path, vllm_mode=mode, algorithm="dapo_top20")
    assert len(calls) == trainer.vllm_generation.syncs == 2
    assert trainer.vllm_generation.asked == [trainer.sizes.rows_per_rank] * 2
    first = history(trainer)[0]
    assert first["sampling/importance_sampling_ratio/max"] <= 3.0
    assert first["sampling/sampling_logp_difference/mean"] == pytest.approx(NOISE * math.sqrt(2 / math.pi), rel=0.3)
    assert all(math.isfinite(row["loss"]) for row in history(trainer))


@pytest.mark.parametrize("mode", MODES)
def test_every_correction_mode_weighs_the_scored_tokens(mode: str, tmp_path: Path) -> None:
    bounds = {"vllm_importance_sampling_clip_min": 0.8, "vllm_importance_sampling_clip_max": 1.25}
    _, calls = train(tmp_path, algorithm="dapo_top20", vllm_importance_sampling_mode=mode, **bounds)
    batch = calls[0][0]
    mask = batch.sampled.tokens.completion_mask.bool() & batch.scores.scored.unsqueeze(1)
    assert batch.sampled.sampler_logps.isnan().any(), "the sampler has to leave some tokens unscored"
    expected = sampler_weights(batch.scores.logps, batch.sampled.sampler_logps, mask, mode, 0.8, 1.25)
    assert torch.equal(batch.weights, expected)
    assert not batch.weights.isnan().any()
    if mode.endswith("mask"):
        assert (batch.weights[mask] == 0).any()
        assert not (batch.candidates & (batch.weights == 0)).any(), "what is masked away must not use up the share"
    total = int(batch.candidates.sum())
    assert int(batch.kept.sum()) == -(-total // 5)


def test_without_correction_nothing_is_weighed(tmp_path: Path) -> None:
    trainer = tiny_run.make_trainer(tmp_path, use_vllm=True, correct_sampler=False)
    trainer.train()
    batch = trainer.rollout
    assert batch.weights is None
    row = history(trainer)[0]
    assert "sampling/importance_sampling_ratio/mean" not in row
    assert "sampling/masked_fraction" not in row
    assert row["sampling/sampling_logp_difference/mean"] == pytest.approx(NOISE * math.sqrt(2 / math.pi), rel=0.3)
    assert row["sampling/sampling_logp_difference/max"] > row["sampling/sampling_logp_difference/mean"]
    # Old log-probabilities are those of the policy's own pass, and not what the sampler said.
    known = batch.scores.scored.unsqueeze(1) & ~batch.sampled.sampler_logps.isnan() & batch.candidates
    away = (batch.scores.logps - batch.sampled.sampler_logps).abs()[known]
    assert float(away.mean()) == pytest.approx(NOISE * math.sqrt(2 / math.pi), rel=0.3)
    part = next(
        cut_slice(batch, step, index, trainer.ranks, trainer.on_policy)
        for step, slices in enumerate(batch.plan) for index, rows in enumerate(slices) if rows
    )  # fmt: skip
    assert torch.equal(part.old_logps, batch.scores.logps[part.rows][:, : part.old_logps.shape[1]])


@pytest.mark.parametrize("setting", [{"top_p": 0.9}, {"top_k": 5}, {"min_p": 0.1}, {"repetition_penalty": 1.2}])
def test_a_sampler_that_cuts_or_penalises_is_not_corrected_for(setting: dict[str, Any], tmp_path: Path) -> None:
    name, value = next(iter(setting.items()))
    with pytest.raises(UserError, match=rf"^args\.{name}={value} with vLLM .* or set correct_sampler=False"):
        tiny_run.make_trainer(tmp_path, use_vllm=True, **setting)
    assert tiny_run.make_trainer(tmp_path, use_vllm=True, correct_sampler=False, **setting).correction is None
    assert tiny_run.make_trainer(tmp_path, **setting).correction is None


def test_the_policy_that_samples_by_itself_is_not_corrected(tmp_path: Path) -> None:
    trainer = tiny_run.train(tmp_path)
    assert trainer.rollout.weights is None
