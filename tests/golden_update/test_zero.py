"""The golden update under DeepSpeed: sharded parameters change nothing either."""

from pathlib import Path
from typing import Any

import pytest

from tests.golden_update.feed import DummyPastTheEngine, error, run, save_model
from tests.golden_update.test_golden_update import assert_matches
from tests.ranks import run_ranks

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

CASES = [
    ("top20", 2), ("top20_two_iterations", 4), ("top20_two_updates", 1), ("top20_kl", 2),
    ("top20_truncation_masked", 1), ("grpo_kl", 4), ("empty_step", 2), ("em_ft", 2), ("entropy_top20_kl", 1),
    ("entropy_informative", 1),
]  # fmt: skip
"""(scenario, micro-batch rows): two updates, accumulation, ranks without rows, a KL term, an empty step, entropies."""


def zero_config(stage: int) -> dict[str, Any]:
    """Real sharding even of a tiny model, and no optimizer or compiler of DeepSpeed's own."""
    zero: dict[str, Any] = {"stage": stage, "contiguous_gradients": True, "overlap_comm": False}
    if stage == 3:
        zero |= {
            "stage3_param_persistence_threshold": 0, "stage3_prefetch_bucket_size": 0,
            "stage3_gather_16bit_weights_on_model_save": True,
        }  # fmt: skip
    return {
        "train_micro_batch_size_per_gpu": "auto", "train_batch_size": "auto", "gradient_accumulation_steps": "auto",
        "gradient_clipping": "auto", "bf16": {"enabled": False}, "fp16": {"enabled": False},
        "zero_allow_untested_optimizer": True, "steps_per_print": 1000000, "zero_optimization": zero,
    }  # fmt: skip


@pytest.mark.parametrize("stage", [2, 3])
def test_zero_matches_on_two_ranks(stage: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = save_model(tmp_path / "model")
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")

    def on_rank(rank: int) -> list:
        import deepspeed

        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
        deepspeed.init_distributed(dist_backend="gloo", auto_mpi_discovery=False)
        out, config = tmp_path / str(rank), zero_config(stage)
        results = [(name, micro, run(name, model, out, micro, ranks=2, deepspeed=config)) for name, micro in CASES]
        if stage == 3:
            name = "top20_truncation_masked"
            wrong = run(name, model, out, 1, ranks=2, trainer_class=DummyPastTheEngine, deepspeed=config)
            assert error(name, wrong) > 0.01, "the suite must see a dummy that skips the engine"
        return results

    for rank, results in enumerate(run_ranks(2, on_rank, timeout=500)):
        for name, micro, result in results:
            assert result["engine"] == "DeepSpeedEngine"
            assert_matches(name, result, f"ZeRO-{stage}, rank {rank} of 2, micro-batch {micro}")
