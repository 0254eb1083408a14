"""Token entropy: how undecided the policy is at a position, in nats."""

import torch
from torch import Tensor

CHUNK_ELEMENTS = 1 << 24
"""Logits worked on at once (64 MiB in fp32). A few times that is the extra memory, if no gradient is recorded."""


def _entropy(logits_NV: Tensor, temperature: float) -> Tensor:
    logps_NV = torch.log_softmax(logits_NV.float() / temperature, dim=-1)
    probs_NV = logps_NV.exp()
    # 0 * log 0 is 0: without the fill a vocabulary entry masked to -inf makes the entropy NaN.
    return -(probs_NV * logps_NV.masked_fill(probs_NV == 0, 0.0)).sum(dim=-1)


def token_entropy(logits: Tensor, temperature: float = 1.0) -> Tensor:
    """Entropy of each next-token distribution (arXiv 2506.01939, eq. 1).

    H = -sum_v p_v ln p_v with p = softmax(logits / temperature), over the full vocabulary, in fp32 whatever the
    dtype of the logits, in chunks of tokens. Differentiable.

    Args:
        logits: (..., V) scores that predict the token at each position.
        temperature: the sampling temperature; positive.

    Returns:
        (...) entropies in nats, float32, between 0 and ln V.

    Raises:
        ValueError: if the temperature is not positive and finite.
    """
    if not 0 < temperature < float("inf"):
        raise ValueError(f"temperature is {temperature}; expected a positive number, the sampling temperature")
    vocabulary = logits.shape[-1]
    flat_NV = logits.reshape(-1, vocabulary)
    chunks = flat_NV.split(max(1, CHUNK_ELEMENTS // vocabulary))
    return torch.cat([_entropy(chunk, temperature) for chunk in chunks]).reshape(logits.shape[:-1])
