"""Which token comes next, as a function of the logits and of one number per row; and whether that was a close call.

The number is a hash of the sample's seed and of the token's position, so a row is drawn alike in any batch. What a
batch does change is the logits, in their last bits: kernels sum in another order. A draw whose outcome hangs on those
bits is reported as doubtful, and the caller decides it on logits that do not depend on the batch.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from rlvr.maths.order import HASH_BITS, random_keys
from rlvr.sampling.settings import Sampling

TOLERANCE = 1e-4
"""Probabilities (and logits, for greedy) closer than this to a boundary make a draw doubtful; divided by temperatures
below 1, which spread the logits. A float32 forward pass in another batch moves logits by about 1e-6."""


class Draw(NamedTuple):
    """Tokens (B,) int64, and which of them (B,) were doubtful."""

    tokens: Tensor
    doubtful: Tensor


def uniforms(seeds: Tensor, positions: Tensor) -> Tensor:
    """Numbers in [0, 1), one per row.

    Args:
        seeds: (B,) int64, of the samples.
        positions: (B,) int64, index of the token within the completion.

    Returns:
        (B,) float64 with 53 random bits.
    """
    return (random_keys(0, 0, seeds, positions) >> (HASH_BITS - 53)).double() * 2.0**-53


def draw(logits: Tensor, numbers: Tensor, sampling: Sampling) -> Draw:
    """Draw one token per row: temperature, then the k likeliest, then the nucleus, then by the inverse distribution.

    Args:
        logits: (B, V).
        numbers: (B,) in [0, 1); not used where the temperature is 0.
        sampling: temperature, top_k and top_p.

    Returns:
        The tokens, and whether errors below `TOLERANCE` could change them.
    """
    if sampling.temperature == 0:
        best = logits.double().topk(2, dim=-1) if logits.shape[-1] > 1 else logits.double().topk(1, dim=-1)
        gap = best.values[:, 0] - best.values[:, -1] if logits.shape[-1] > 1 else torch.ones_like(best.values[:, 0])
        return Draw(best.indices[:, 0], gap < TOLERANCE)
    probs = torch.softmax(logits.double() / sampling.temperature, dim=-1)
    doubtful = torch.zeros(len(probs), dtype=torch.bool, device=probs.device)
    tolerance = TOLERANCE / min(1.0, sampling.temperature)
    if 0 < sampling.top_k < probs.shape[-1]:
        edge = probs.topk(sampling.top_k + 1, dim=-1).values
        doubtful |= edge[:, -2] - edge[:, -1] < tolerance * edge[:, -2]
        probs = probs.masked_fill(probs < edge[:, -2:-1], 0.0)
        probs = probs / probs.sum(dim=-1, keepdim=True)
    if sampling.top_p < 1:
        probs, close = _nucleus(probs, sampling.top_p, tolerance)
        doubtful |= close
    return _inverse(probs, numbers, doubtful, tolerance)


def _nucleus(probs: Tensor, top_p: float, tolerance: float) -> tuple[Tensor, Tensor]:
    """The fewest tokens, likeliest first, that have at least `top_p` together (arXiv 1904.09751)."""
    ordered, order = probs.sort(dim=-1, descending=True, stable=True)
    before = ordered.cumsum(dim=-1) - ordered
    kept = before < top_p
    last = kept.sum(dim=-1, keepdim=True) - 1
    # Which token is the last one in hangs on the sum before it, and on a gap to the next likeliest.
    sums_close = ((before - top_p).abs() < tolerance).any(dim=-1)
    following = (last + 1).clamp(max=probs.shape[-1] - 1)
    gap = (ordered.gather(-1, last) - ordered.gather(-1, following)).squeeze(-1)
    tie = (gap < tolerance * ordered.gather(-1, last).squeeze(-1)) & (last != following).squeeze(-1)
    mask = torch.zeros_like(kept).scatter(-1, order, kept)
    cut = probs.masked_fill(~mask, 0.0)
    return cut / cut.sum(dim=-1, keepdim=True), sums_close | tie


def _inverse(probs: Tensor, numbers: Tensor, doubtful: Tensor, tolerance: float) -> Draw:
    """The token whose interval of the cumulative distribution, in the order of the vocabulary, holds the number."""
    cumulative = probs.cumsum(dim=-1)
    total = cumulative[:, -1:]
    # Below the total, which the product may be rounded to: behind it stand tokens of probability 0.
    target = (numbers.to(probs.device)[:, None] * total).minimum(total.nextafter(torch.zeros_like(total)))
    tokens = torch.searchsorted(cumulative, target, right=True).clamp(max=probs.shape[-1] - 1)
    upper = cumulative.gather(-1, tokens)
    lower = upper - probs.gather(-1, tokens)
    close = ((upper - target).abs() < tolerance) | ((target - lower).abs() < tolerance)
    return Draw(tokens.squeeze(-1), doubtful | close.squeeze(-1))
