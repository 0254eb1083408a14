"""Correct for a sampler that is not quite the policy: another kernel, another precision, slightly older weights."""

import torch
from torch import Tensor

MODES = ("token_truncate", "token_mask", "sequence_truncate", "sequence_mask")


def sampler_weights(
    logps: Tensor,
    sampling_logps: Tensor,
    mask: Tensor,
    mode: str = "sequence_mask",
    clip_min: float | None = None,
    clip_max: float | None = 3.0,
) -> Tensor:
    """Importance weights of the scored policy over the sampler, as TRL defines them (`vllm_importance_sampling_mode`).

    `token_*` weighs every token by its own ratio, `sequence_*` every token of a row by the product of its ratios.
    `*_truncate` clamps a ratio into [clip_min, clip_max] (truncated importance sampling);
    `*_mask` sets one outside to 0, which takes the token or the whole row out of the update.

    Args:
        logps: (B, T) log-probabilities of the sampled tokens under the policy, in nats.
        sampling_logps: (B, T) those the sampler reported; NaN where it could not, which counts as a ratio of 1.
        mask: (B, T) bool, sampled tokens.
        mode: one of `MODES`.
        clip_min: lower bound, or None for none.
        clip_max: upper bound, or None for none.

    Returns:
        (B, T) weights, 0 outside the mask.

    Raises:
        ValueError: for an unknown mode, or a truncation without a bound.
    """
    if mode not in MODES:
        raise ValueError(f"mode is {mode!r}; expected one of {MODES}")
    level, action = mode.split("_")
    if action == "truncate" and clip_min is None and clip_max is None:
        raise ValueError(f"mode {mode} truncates, but clip_min and clip_max are both None; give at least one")
    known = mask & ~sampling_logps.isnan()
    differences = torch.where(known, logps - torch.where(known, sampling_logps, 0.0), 0.0)
    if level == "sequence":
        differences = differences.sum(dim=1, keepdim=True).expand_as(differences)
    weights = differences.exp()
    low, high = (float("-inf") if clip_min is None else clip_min), (float("inf") if clip_max is None else clip_max)
    if action == "truncate":
        return torch.where(mask, weights.clamp(low, high), 0.0)
    return torch.where(mask & (weights >= low) & (weights <= high), weights, 0.0)  # a product would make inf * 0 NaN
