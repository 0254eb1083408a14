"""Token entropy: how undecided the policy is at a position, in nats."""

from typing import Any

import torch
from torch import Tensor

CHUNK_ELEMENTS = 1 << 24
"""Logits worked on at once (64 MiB in fp32). A few times that is the extra memory, if no gradient is recorded."""


def _chunk_rows(vocabulary: int) -> int:
    return max(1, CHUNK_ELEMENTS // vocabulary)


def _entropy(logits_NV: Tensor, temperature: float) -> Tensor:
    logps_NV = torch.log_softmax(logits_NV / temperature, dim=-1)
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
    chunks = flat_NV.split(_chunk_rows(vocabulary))
    return torch.cat([_entropy(chunk.float(), temperature) for chunk in chunks]).reshape(logits.shape[:-1])


def _exact(logits: Tensor) -> Tensor:
    """At least float32: bf16 logits cancel badly in sum p z."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


class _EntropyAndLogps(torch.autograd.Function):
    """Keeps the logits only: probabilities are computed anew in the backward pass, a chunk of tokens at a time."""

    @staticmethod
    def forward(
        ctx: Any, logits_KV: Tensor, temperature: float, targets_K: Tensor | None, target_temperature: float
    ) -> tuple[Tensor, Tensor]:
        vocabulary = logits_KV.shape[1]
        entropies, logps = [_exact(logits_KV[:0, 0])], [_exact(logits_KV[:0, 0])]
        for start in range(0, len(logits_KV), _chunk_rows(vocabulary)):
            chunk = _exact(logits_KV[start : start + _chunk_rows(vocabulary)])
            entropies.append(_entropy(chunk, temperature))
            if targets_K is not None:
                at = targets_K[start : start + _chunk_rows(vocabulary)].unsqueeze(1)
                scaled = chunk / target_temperature
                logps.append(scaled.gather(1, at).squeeze(1) - scaled.logsumexp(dim=1))
        entropies_K = torch.cat(entropies)
        ctx.temperatures, ctx.scored = (temperature, target_temperature), targets_K is not None
        ctx.save_for_backward(logits_KV, entropies_K, *([] if targets_K is None else [targets_K]))
        return entropies_K, torch.cat(logps) if targets_K is not None else torch.zeros_like(entropies_K)

    @staticmethod
    def backward(ctx: Any, *gradients_K: Tensor) -> tuple[Tensor, None, None, None]:
        logits_KV, entropies_K, *targets = ctx.saved_tensors
        temperature, target_temperature = ctx.temperatures
        gradient_KV, step = torch.empty_like(logits_KV), _chunk_rows(logits_KV.shape[1])
        for start in range(0, len(logits_KV), step):
            at = slice(start, start + step)
            logits = _exact(logits_KV[at])
            logps = torch.log_softmax(logits / temperature, dim=1)
            probs = logps.exp()
            # dH/dz_v = -p_v (ln p_v + H) / temperature
            inner = logps.masked_fill(probs == 0, 0.0) + entropies_K[at].unsqueeze(1)
            gradient = probs * inner * (-gradients_K[0][at].unsqueeze(1) / temperature)
            if ctx.scored:
                pull = gradients_K[1][at].unsqueeze(1) / target_temperature
                gradient -= torch.softmax(logits / target_temperature, dim=1) * pull
                gradient.scatter_add_(1, targets[0][at].unsqueeze(1), pull)
            gradient_KV[at] = gradient.to(gradient_KV.dtype)
        return gradient_KV, None, None, None


def entropy_and_logps(
    logits_KV: Tensor, temperature: float, targets_K: Tensor | None = None, target_temperature: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Entropies to differentiate, and log-probabilities from the same logits, at a temperature each.

    Beside the logits, the backward pass needs their gradient and a chunk; plain autograd would keep several tensors of
    that size from the forward pass on. The gradient is dH/dz_v = -p_v (ln p_v + H) / temperature.

    Args:
        logits_KV: (K, V) scores that predict the token at each of K positions; K may be 0.
        temperature: of the entropies.
        targets_K: (K,) int64 tokens to score, or None.
        target_temperature: of the log-probabilities.

    Returns:
        (K,) entropies and (K,) log-probabilities, in nats, float32 (float64 of float64 logits); without targets the
        second is 0 and without gradient.

    Raises:
        ValueError: if a temperature is not positive and finite.
    """
    for value in (temperature, target_temperature):
        if not 0 < value < float("inf"):
            raise ValueError(f"temperature is {value}; expected a positive number")
    entropies_K, logps_K = _EntropyAndLogps.apply(logits_KV, temperature, targets_K, target_temperature)
    return entropies_K, logps_K if targets_K is not None else logps_K.detach()
