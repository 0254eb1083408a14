"""The recorded batch's scenarios: settings of the update, read by the reference and by the trainer's tests."""

from typing import Any

BASE: dict[str, Any] = {
    "rewards": "rewards", "keep": 0.2, "candidates": "informative", "normalizer": "kept", "reduction": "token_mean",
    "epsilon": 0.2, "epsilon_high": 0.28, "dual_clip": None, "beta": 0.0, "mask_truncated": False, "updates": 1,
    "iterations": 1, "old": "old_logps_extreme", "objective": "clipped", "temperature": None,
}  # fmt: skip

# -95 stands at the token of lowest entropy: harmless only where nothing exponentiates it outside the selected tokens.
CHANGES: dict[str, dict[str, Any]] = {
    "top20": {},
    "top20_two_iterations": {"iterations": 2, "dual_clip": 3.0},
    "top20_two_updates": {"updates": 2},
    "top20_kl": {"updates": 2, "beta": 0.05, "old": "old_logps"},
    "top20_truncation_masked": {"updates": 2, "mask_truncated": True, "reduction": "sequence_mean"},
    "top50_all_normalizer": {"keep": 0.5, "normalizer": "all", "reduction": "token_mean_rollout", "updates": 2},
    "top50_constant": {"keep": 0.5, "reduction": "constant", "candidates": "all"},
    "grpo_kl": {
        "keep": 1.0, "candidates": "all", "normalizer": "all", "reduction": "sequence_mean", "beta": 0.05,
        "old": "old_logps", "iterations": 2,
    },
    "dapo": {"keep": 1.0, "candidates": "all", "normalizer": "all", "updates": 2, "old": "old_logps"},
    "em_ft": {
        "objective": "entropy", "temperature": 1.0, "keep": 1.0, "candidates": "all", "normalizer": "all",
        "reduction": "sequence_sum", "updates": 2,
    },
    "one_shot_em": {
        "objective": "entropy", "temperature": 0.5, "keep": 1.0, "candidates": "all", "normalizer": "all",
        "rewards": "rewards_degenerate",
    },
    "entropy_top20_kl": {
        "objective": "entropy", "temperature": 0.5, "candidates": "all", "beta": 0.05, "old": "old_logps",
        "mask_truncated": True, "iterations": 2,
    },
    "entropy_informative": {
        "objective": "entropy", "temperature": 0.5, "keep": 0.5, "updates": 2, "reduction": "sequence_mean",
        "rewards": "rewards_half_degenerate",
    },
    "empty_step": {"rewards": "rewards_half_degenerate", "updates": 2},
    "nothing_to_learn": {"rewards": "rewards_degenerate"},
}  # fmt: skip


def scenario(name: str) -> dict[str, Any]:
    """The settings of one scenario; `on_policy` says that the ratio is 1 by construction."""
    settings = {**BASE, **CHANGES[name]}
    settings["on_policy"] = settings["updates"] * settings["iterations"] == 1
    return settings
