"""What the seam relies on in TRL 1.16: parity, signatures, batch keys, defaults, and the three facts about scaling."""

import dataclasses
import inspect
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import trl.kernels.chunked_logprob
import trl.trainer.utils as trl_utils
from accelerate import Accelerator
from transformers import Trainer
from trl import GRPOConfig, GRPOTrainer

from rlvr.trainer.forward import Tokens, compacted_head, token_logps
from rlvr.trainer.seam import RLVRTrainer
from tests.contract.parity import VOCABULARY, Case, T
from tests.ranks import run_ranks
from tests.trainer.tiny import make_qwen3, make_tokenizer

HERE = Path(__file__).parent
LOSS_TOLERANCE, GRADIENT_TOLERANCE = 2e-6, 1e-5

PARITY: list[dict[str, Any]] = [
    {"loss_type": loss_type, "keep": keep, "beta": beta}
    for loss_type in ("dapo", "grpo", "dr_grpo")
    for keep in (1.0, 0.2)
    for beta in (0.0, 0.05)
] + [
    {"loss_type": "dapo", "keep": keep, "beta": beta, "updates": 2, "micro": 2, "reduction": "token_mean_rollout"}
    for keep in (1.0, 0.2)
    for beta in (0.0, 0.05)
]  # fmt: skip
SAMPLERS = [
    {"loss_type": "dapo", "keep": 1.0, "beta": 0.05, "sampler": mode}
    for mode in ("token_truncate", "token_mask", "sequence_truncate", "sequence_mask")
]
ONE_RANK_ONLY = [{"loss_type": "bnpo", "keep": keep, "beta": 0.05, "micro": 16} for keep in (1.0, 0.2)]
"""bnpo divides per micro-batch, so it is what ours is only where one micro-batch is the whole step."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("parity")
    make_qwen3(VOCABULARY).save_pretrained(folder)
    make_tokenizer(VOCABULARY).save_pretrained(folder)
    return folder


def assert_parity(case: Case, settings: dict[str, Any]) -> None:
    for step in range(case.updates):
        ours, theirs, gradients = case.compare(step)
        assert abs(theirs) > 1e-3, f"{settings}: a loss near 0 proves nothing"
        assert abs(ours - theirs) < LOSS_TOLERANCE * max(1, abs(theirs)), f"{settings}, step {step}: {ours} {theirs}"
        assert gradients < GRADIENT_TOLERANCE, f"{settings}, step {step}: gradients differ by {gradients:.2e}"


@pytest.mark.parametrize(
    "settings", PARITY + SAMPLERS + ONE_RANK_ONLY, ids=lambda settings: "-".join(map(str, settings.values()))
)
def test_loss_and_gradient_equal_trl_on_one_rank(settings: dict[str, Any], model: Path, tmp_path: Path) -> None:
    assert_parity(Case(model, tmp_path, **settings), settings)


def test_loss_and_gradient_equal_trl_on_two_ranks(model: Path, tmp_path: Path) -> None:
    def on_rank(rank: int) -> int:
        for settings in PARITY:
            settings = {**settings, "micro": 2}
            assert_parity(Case(model, tmp_path / str(rank), ranks=2, **settings), settings)
        return len(PARITY)

    assert run_ranks(2, on_rank, timeout=280) == [len(PARITY)] * 2


def test_parity_sees_a_clip_that_does_not_clip(model: Path, tmp_path: Path) -> None:
    case = Case(model, tmp_path, "dapo", 0.2, 0.0)
    case.ours.algorithm.objective.epsilon_high = 10.0
    _, _, gradients = case.compare(0)
    assert gradients > 1e-2


SIGNATURES = {
    "_calculate_rewards": ["self", "inputs", "prompts", "completions", "completion_ids_list"],
    "_compute_loss": ["self", "model", "inputs"],
    "_generate_and_score_completions": ["self", "inputs"],
    "_load_optimizer_and_scheduler": ["self", "checkpoint"],
    "_prepare_inputs": ["self", "generation_batch"],
    "_save_checkpoint": ["self", "model", "trial"],
    "get_train_dataloader": ["self"],
    "log": ["self", "logs", "start_time"],
    "training_step": ["self", "model", "inputs", "num_items_in_batch"],
}


@pytest.mark.parametrize("name", SIGNATURES)
def test_overridden_methods_have_the_signature_they_had(name: str) -> None:
    assert list(inspect.signature(getattr(GRPOTrainer, name)).parameters) == SIGNATURES[name]
    assert list(inspect.signature(getattr(RLVRTrainer, name)).parameters) == SIGNATURES[name]


def test_defaults_of_trl_are_the_recorded_ones() -> None:
    """A default that flips without a rename changes training silently. Record anew: see the message."""
    now = {
        field.name: repr(field.default)
        for field in dataclasses.fields(GRPOConfig)
        if field.default is not dataclasses.MISSING
    }
    recorded = json.loads((HERE / "grpo_config_defaults.json").read_text())
    changed = {
        name: (recorded.get(name), now.get(name)) for name in {*now, *recorded} if recorded.get(name) != now.get(name)
    }
    assert not changed, f"TRL's defaults moved (recorded, now): {changed}; check each, then write them into the file"


def test_nobody_divides_the_loss_again(model: Path, tmp_path: Path) -> None:
    assert GRPOTrainer.loss_is_scaled_for_ga is True
    assert Accelerator().gradient_accumulation_steps == 1
    trainer = Case(model, tmp_path, "dapo", 1.0, 0.0).ours
    assert trainer.accelerator.gradient_accumulation_steps == 1
    assert 'kwargs["scale_wrt_gas"] = False' in inspect.getsource(Trainer.training_step)


class CountedHead:
    """Stands in for TRL's head function and counts the positions it projects."""

    def __init__(self, function: Any) -> None:
        self.function, self.projected = function, 0

    def apply(self, hidden: torch.Tensor, *rest: Any) -> Any:
        self.projected += hidden.shape[0]
        return self.function.apply(hidden, *rest)


@pytest.mark.parametrize("tied", [False, True])
def test_the_head_projects_selected_positions_only_and_gives_the_same(
    tied: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = make_qwen3(VOCABULARY, tied=tied)
    trl_utils.add_fused_lm_head(policy, temperature=0.8, outputs=("log_probs", "entropy"))
    ids = torch.randint(2, VOCABULARY, (3, 4 + T), generator=torch.Generator().manual_seed(0))
    tokens = Tokens(ids[:, :4], torch.ones(3, 4, dtype=torch.long), ids[:, 4:], torch.ones(3, T, dtype=torch.long))
    selected = torch.rand(3, T, generator=torch.Generator().manual_seed(1)) < 0.2
    dense_logps, dense_entropies = token_logps(policy, tokens, torch.ones_like(selected))
    (dense_logps * selected).sum().backward()
    dense_gradient = torch.cat([parameter.grad.flatten() for parameter in policy.parameters()])
    policy.zero_grad()
    counted = CountedHead(trl_utils._ChunkedLogProbFunction)
    monkeypatch.setattr(trl_utils, "_ChunkedLogProbFunction", counted)
    with compacted_head(VOCABULARY, True):
        logps, entropies = token_logps(policy, tokens, selected)
    logps.sum().backward()
    assert counted.projected == int(selected.sum()) < selected.numel()
    torch.testing.assert_close(logps, dense_logps * selected, rtol=0, atol=1e-6)
    torch.testing.assert_close(entropies, dense_entropies * selected, rtol=0, atol=1e-6)
    sparse_gradient = torch.cat([parameter.grad.flatten() for parameter in policy.parameters()])
    torch.testing.assert_close(sparse_gradient, dense_gradient, rtol=1e-5, atol=1e-6)


def test_compaction_ends_with_its_block_and_leaves_the_kernels_alone() -> None:
    before, kernels = trl_utils._use_triton, trl.kernels.chunked_logprob._use_triton
    with compacted_head(VOCABULARY, True):
        assert trl_utils._use_triton(torch.device("cpu")) is True
        assert trl.kernels.chunked_logprob._use_triton is kernels
    assert trl_utils._use_triton is before
    assert trl_utils._CHUNKED_LOGPROB_CHUNK_SIZE > VOCABULARY


def test_generation_returns_the_keys_that_are_read(model: Path, tmp_path: Path) -> None:
    trainer = Case(model, tmp_path, "dapo", 1.0, 0.0).ours
    rows = [{"prompt": "t2 t3"}] * trainer.sizes.rows_per_rank
    output = GRPOTrainer._generate_and_score_completions(trainer, rows)
    assert {"prompt_ids", "prompt_mask", "completion_ids", "completion_mask"} <= set(output)
    assert "old_per_token_logps" not in output, "TRL scores rows although our method returns None"
    assert trainer.rewards_per_func.shape == (trainer.sizes.rows_per_rank, 1)
