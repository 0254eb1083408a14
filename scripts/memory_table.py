"""Memory per GPU for well-known shapes, by DeepSpeed stage: the estimate of `rlvr plan`, as a table.

    python -m scripts.memory_table --gpus 8 --tokens 8192

Weights are counted on torch's meta device, from each model's public sizes; nothing is downloaded. The run: bfloat16
autocast, gradient checkpointing, one row of so many tokens in a slice.
"""

import argparse
from typing import Any

import torch

from rlvr.config.compose import compose
from rlvr.model_shape import ModelShape
from rlvr.plan import memory_estimate
from rlvr.preflight import run_sizes

SHAPES: dict[str, dict[str, Any]] = {
    "Qwen3-0.6B": {"hidden_size": 1024, "num_hidden_layers": 28, "num_attention_heads": 16, "intermediate_size": 3072},
    "Qwen3-1.7B": {"hidden_size": 2048, "num_hidden_layers": 28, "num_attention_heads": 16, "intermediate_size": 6144},
    "Qwen3-8B": {"hidden_size": 4096, "num_hidden_layers": 36, "num_attention_heads": 32, "intermediate_size": 12288},
    "Qwen3-32B": {"hidden_size": 5120, "num_hidden_layers": 64, "num_attention_heads": 64, "intermediate_size": 25600},
}
"""From the models' public configurations; all with 8 key-value heads of 128 and 151 936 tokens."""

TIED = ("Qwen3-0.6B", "Qwen3-1.7B")
STAGES = ("none", "zero1", "zero2", "zero3")
CACHE = "key-value cache while sampling"


def shape_of(name: str) -> ModelShape:
    """The sizes of a model, its weights counted without memory for them."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    sizes = {**SHAPES[name], "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151_936}
    with torch.device("meta"):
        model = Qwen3ForCausalLM(Qwen3Config(tie_word_embeddings=name in TIED, **sizes))
    weights = sum(parameter.numel() for parameter in model.parameters())
    return ModelShape(weights, sizes["hidden_size"], sizes["num_hidden_layers"], 8 * 128, sizes["vocab_size"])


def row(name: str, stage: str, gpus: int, tokens: int, dtype: str) -> list[str]:
    """A line of the table: what stays, what a slice adds, and both, in GB."""
    config = compose([
        f"deepspeed={stage}", f"model.dtype={dtype}", "model.gradient_checkpointing=true",
        f"rollouts.prompts={8 * gpus}", "rollouts.num_generations=8", "optimizer.micro_batch_rows=1",
        "rollouts.backend=vllm", f"rollouts.max_completion_length={tokens}",
    ])  # fmt: skip
    parts = memory_estimate(shape_of(name), config, run_sizes(config, gpus), prompt_tokens=512)
    working = sum(value for key, value in parts.items() if key in ("activations of a slice", "LM head tile"))
    stays = sum(parts.values()) - working - parts[CACHE]
    return [name, stage, *(f"{value / 1e9:.1f}" for value in (stays, working, stays + working))]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gpus", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=8192, help="of a completion")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--models", nargs="+", choices=SHAPES, default=["Qwen3-1.7B", "Qwen3-8B", "Qwen3-32B"])
    arguments = parser.parse_args()
    print(f"| model | `deepspeed=` | stays, GB | a slice of {arguments.tokens} tokens, GB | together, GB |")
    print("| --- | --- | --- | --- | --- |")
    for name in arguments.models:
        for stage in STAGES:
            print(f"| {' | '.join(row(name, stage, arguments.gpus, arguments.tokens, arguments.dtype))} |")


if __name__ == "__main__":
    main()
