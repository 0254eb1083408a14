"""Shapes of Qwen3 models, their random weights, and the FLOPs of a step's useful work."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Shape:
    """Sizes of a Qwen3 model.

    Attributes:
        hidden: width of the residual stream.
        layers: decoder layers.
        heads: query heads.
        kv_heads: key and value heads.
        head_dim: width of a head.
        intermediate: width of the gated MLP.
        vocabulary: V.
        tied: whether the LM head is the embedding.
    """

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocabulary: int
    tied: bool = True

    @property
    def trunk_weights(self) -> int:
        """Weights that every token is multiplied with: projections and MLPs; no embedding, no norms, no LM head."""
        attention = self.hidden * self.head_dim * (2 * self.heads + 2 * self.kv_heads)
        return self.layers * (attention + 3 * self.hidden * self.intermediate)

    @property
    def weights(self) -> int:
        """All weights but the norms'."""
        return self.trunk_weights + self.hidden * self.vocabulary * (1 if self.tied else 2)


SHAPES = {
    "tiny": Shape(16, 2, 2, 1, 8, 32, 64),
    "small": Shape(256, 6, 4, 2, 64, 768, 32_768),
    "qwen3-0.6b": Shape(1024, 28, 16, 8, 128, 3072, 151_936),
    "qwen3-1.7b": Shape(2048, 28, 16, 8, 128, 6144, 151_936),
    "qwen3-8b": Shape(4096, 36, 32, 8, 128, 12_288, 151_936, tied=False),
}
"""`small` is the default of the benchmark; the last three are the sizes of the published configurations."""

PEAK_TFLOPS = {"H100": 989.0, "H200": 989.0, "A100": 312.0, "L40S": 362.0, "L4": 121.0}
"""Dense bf16 TFLOP/s by a part of the device's name, from NVIDIA's data sheets (SXM where there are several)."""


def forward_flops(shape: Shape, tokens: int, projected: int) -> float:
    """FLOPs of one row's forward pass, a multiply-add counted as two.

    2 * trunk weights * n for the matrices, 2 * layers * heads * head_dim * n^2 for causal attention (scores and
    values, 2 * n^2 multiply-adds per channel, half of them masked), 2 * hidden * V * p for the LM head.

    Args:
        shape: the model.
        tokens: n, prompt and completion tokens up to the last one that is needed; no padding.
        projected: p, positions of which the LM head is needed.
    """
    attention = 2 * shape.layers * shape.heads * shape.head_dim * tokens**2
    return float(2 * shape.trunk_weights * tokens + attention + 2 * shape.hidden * shape.vocabulary * projected)


def useful_flops(shape: Shape, trained: Iterable[tuple[int, int]], scored: Iterable[tuple[int, int]] = ()) -> float:
    """FLOPs that a step needs at least: forward and backward (three forwards) of what carries gradient.

    Nothing is counted for padding, for recomputation, for tokens after a row's last kept one, for rows without
    gradient, or for the optimizer.

    Args:
        shape: the model.
        trained: (tokens, projected) of every row with gradient: up to its last kept token, and its kept tokens.
        scored: (tokens, projected) of every row of the pass without gradient, where one was made: the whole row, and
            its completion tokens.
    """
    return 3 * sum(forward_flops(shape, *row) for row in trained) + sum(forward_flops(shape, *row) for row in scored)


def make_model(shape: Shape, device: str, dtype: str, positions: int) -> Any:
    """Random weights, the same for the same shape, device and type."""
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    config = Qwen3Config(
        vocab_size=shape.vocabulary, hidden_size=shape.hidden, intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers, num_attention_heads=shape.heads, num_key_value_heads=shape.kv_heads,
        head_dim=shape.head_dim, tie_word_embeddings=shape.tied, max_position_embeddings=positions,
        eos_token_id=1, pad_token_id=0, bos_token_id=None, use_cache=False,
    )  # fmt: skip
    torch.manual_seed(0)
    with torch.device(device):
        return Qwen3ForCausalLM(config).to(getattr(torch, dtype))


def make_tokenizer() -> Any:
    """`<pad>` 0 and `<eos>` 1: rollouts are injected as ids, so that no other word is ever read."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.WordLevel({"<pad>": 0, "<eos>": 1}, unk_token="<pad>"))
    return PreTrainedTokenizerFast(tokenizer_object=core, pad_token="<pad>", eos_token="<eos>", padding_side="left")
