"""Record the batch, the weights and the float64 results: `python -m tests.golden_update.record`, by hand, once."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.golden_update import reference
from tests.golden_update.reference import PROMPT, VOCABULARY, G, P, T
from tests.golden_update.scenarios import CHANGES, scenario

HERE = Path(__file__).parent
EOS = 1


def make_model() -> Any:
    """A Qwen3 of 5 000 weights, random; the lm head is its own."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(11)
    config = Qwen3Config(
        vocab_size=VOCABULARY, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, head_dim=8, tie_word_embeddings=False, eos_token_id=EOS, pad_token_id=0,
        initializer_range=0.3,
    )  # fmt: skip
    return Qwen3ForCausalLM(config)


def make_batch() -> dict[str, np.ndarray]:
    """Mixed, degenerate, truncated and empty rows; a zero advantage in an informative group; an old logp of -95."""
    rng = np.random.default_rng(3)
    rows = P * G
    prompt_lengths = np.repeat(rng.integers(2, PROMPT + 1, P), G)
    lengths = rng.integers(2, T + 1, rows)
    lengths[9] = 0  # an empty completion
    truncated = np.zeros(rows, dtype=bool)
    truncated[[2, 8, 14]] = True
    lengths[truncated] = T
    prompt_mask = np.arange(PROMPT)[None, :] >= PROMPT - prompt_lengths[:, None]
    completion_mask = np.arange(T)[None, :] < lengths[:, None]
    prompts = np.repeat(rng.integers(2, VOCABULARY, (P, PROMPT)), G, axis=0) * prompt_mask
    completions = rng.integers(2, VOCABULARY, (rows, T)) * completion_mask
    for row in range(rows):
        if lengths[row] and not truncated[row]:
            completions[row, lengths[row] - 1] = EOS
    entropies = rng.gamma(0.7, 0.9, (rows, T)).astype(np.float32) * completion_mask
    mixed = [1, 0, 0, 1], [1, 1, 1, 1], [0, 1, 0, 0], [1, 0.5, 0, 0.5]
    half = [1, 0, 0, 1], [1, 1, 1, 1], [0, 1, 0, 0], [0, 0, 0, 0]
    return {
        "prompt_ids": prompts, "prompt_mask": prompt_mask, "completion_ids": completions,
        "completion_mask": completion_mask, "truncated": truncated, "entropies": entropies,
        "rewards": np.array(mixed, dtype=np.float32).reshape(-1),
        "rewards_half_degenerate": np.array(half, dtype=np.float32).reshape(-1),
        "rewards_degenerate": np.repeat(np.array([1, 0, 1, 0], dtype=np.float32), G),
    }  # fmt: skip


def add_log_probs(batch: dict[str, np.ndarray], model: Any) -> None:
    """Old and reference log-probabilities near the model's own, so that some ratios are clipped and most are not."""
    rng = np.random.default_rng(4)
    with torch.no_grad():
        logps = reference.model_logps(model, batch).numpy()
    noise = rng.normal(0, 0.25, logps.shape)
    batch["old_logps"] = ((logps + noise) * batch["completion_mask"]).astype(np.float32)
    batch["ref_logps"] = ((logps + rng.normal(0, 0.4, logps.shape)) * batch["completion_mask"]).astype(np.float32)
    unselected = np.unravel_index(
        np.argmin(np.where(batch["completion_mask"], batch["entropies"], np.inf)), logps.shape
    )
    batch["old_logps_extreme"] = batch["old_logps"].copy()
    batch["old_logps_extreme"][unselected] = -95.0


def main() -> None:
    model = make_model()
    weights = {name: value.detach().numpy().copy() for name, value in model.state_dict().items()}
    batch = make_batch()
    add_log_probs(batch, make_model().double())
    expected: dict[str, Any] = {}
    for name in CHANGES:
        exact = make_model().double()
        start = {key: value.detach().clone() for key, value in exact.named_parameters()}
        losses, after = reference.train(exact, batch, scenario(name))
        expected[f"{name}/losses"] = np.array(losses)
        for step, values in enumerate(after):
            flat = torch.cat([(start[key] - values[key]).flatten() for key in sorted(start)])
            expected[f"{name}/update_{step}"] = flat.numpy()
            moved = float(flat.norm() / torch.cat([start[key].flatten() for key in sorted(start)]).norm())
            print(f"{name:26} step {step}: loss {losses[step]:+.6f}, moved {moved:.2%} of the weights")
    np.savez_compressed(HERE / "weights.npz", **weights)
    np.savez_compressed(HERE / "batch.npz", **batch)
    np.savez_compressed(HERE / "expected.npz", **expected)


if __name__ == "__main__":
    main()
