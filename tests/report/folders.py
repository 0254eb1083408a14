"""Run folders written by hand, with texts that try to break out of the page."""

import json
import math
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models

from rlvr.rollouts.record import write_record

HOSTILE = [
    "<script>window.hacked=1</script>",
    "</span><img src=x onerror=window.hacked=2>",
    '" onmouseover="window.hacked=3" x="',
    "\x00\x1b[31m\x7f\r\u202e\u200b\ufeff",
    "{{ 7 * 7 }}{% raw %}",
    "</script></style><iframe src=http://example.invalid/>",
]
WORDS = ["<|end|>", "1", "+", "=", "3", "line\n", *HOSTILE]
"""Texts of the tokens, by id."""


def write_tokenizer(folder: Path) -> Path:
    """A tokenizer whose tokens are `WORDS`."""
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token=WORDS[0]))
    tokenizer.decoder = decoders.Fuse()
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def metrics_row(step: int, steps: int) -> dict[str, Any]:
    """What an optimizer step writes, with recognisable curves."""
    progress = step / steps
    return {
        "step": step, "rollout_step": step, "epoch": progress, "seconds": 0.5 * step, "loss": 0.1 * math.sin(step),
        "grad_norm": 1.0 + progress, "learning_rate": 1e-4, "selection/empty_steps": 0, "seconds/reward": 0.01,
        "seconds/generate": 0.25, "seconds/score": 0.04, "seconds/select": 0.01, "seconds/train": 0.19,
        "completions/mean_length": 14.0, "completions/min_length": 9.0, "completions/max_length": 20.0,
        "completions/clipped_ratio": 0.25 * progress, "reward": 0.9 * progress, "reward_std": 0.4,
        "frac_reward_zero_std": progress, "accuracy": progress, "entropy": 0.2, "selection/candidates": 1000.0,
        "selection/kept_fraction": 0.2, "selection/entropy_kept": 0.8, "selection/entropy_dropped": 0.01,
        "selection/threshold": 0.3, "clip_ratio/low_mean": 0.0, "clip_ratio/high_mean": 0.01,
        "clip_ratio/region_mean": 0.01,
    }  # fmt: skip


def record_row(step: int, row: int, token_ids: list[int], **changes: Any) -> dict[str, Any]:
    """A recorded completion; every third token is kept, two rows share a prompt, every second one is correct."""
    length = len(token_ids)
    correct = row % 2 == 0
    return {
        "step": step, "rollout_step": step, "row": row, "group": row // 2, "prompt_id": f"{row // 2:016x}",
        "prompt": f"1+{row // 2}=", "completion": "".join(WORDS[token] for token in token_ids), "gold": "3",
        "reward": float(correct), "rewards": {"accuracy": float(correct)}, "correct": correct,
        "status": "correct" if correct else "wrong", "truncated": False, "token_ids": token_ids,
        "entropies": [(index % 7) / 3 for index in range(length)], "logprobs": [-0.125] * length,
        "kept": [index % 3 == 0 for index in range(length)], "advantages": [1.5 if correct else -1.5] * length,
    } | changes  # fmt: skip


def write_run(folder: Path, steps: int = 12, rows: int = 8, tokens: int = 12, recorded: int = 5) -> Path:
    """A whole run folder: every part there, hostile tokens in every completion."""
    policy = write_tokenizer(folder / "policy")
    (folder / "config.yaml").write_text(
        f"run:\n  name: a run of tests\n  algorithm: dapo_top20\n  seed: 7\n  steps: {steps}\n"
        f"model:\n  path: {policy}\nselection:\n  name: top_entropy\n  keep: 0.2\n"
        "rollouts:\n  max_completion_length: 48\n"
    )
    lines = [json.dumps(metrics_row(step, steps)) for step in range(1, steps + 1)]
    (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    for step in [round(1 + index * (steps - 1) / max(recorded - 1, 1)) for index in range(recorded)]:
        ids = [[(row + step + index) % len(WORDS) for index in range(tokens)] for row in range(rows)]
        write_record([record_row(step, row, ids[row]) for row in range(rows)], folder / "rollouts", step)
    summary = {
        "accuracy_before": 0.25, "accuracy_after": 0.75, "greedy_before": 0.3, "greedy_after": 0.8,
        "heldout_problems": 100, "steps": steps, "train_seconds": 6.04, "seed": 7, "algorithm": "dapo_top20",
        "accuracy_during": [[6, 0.5]],
    }  # fmt: skip
    (folder / "summary.json").write_text(json.dumps(summary))
    return folder
