"""Importance ratios, clipping and divergences, per token."""

import torch
from torch import Tensor


def masked_log_ratio(logps_BT: Tensor, other_logps_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """Difference of log-probabilities inside the mask and 0 outside it, in value and in gradient.

    Outside the mask a sparse LM head returns 0 while the recorded log-probability may be -95: exp(95) overflows, and
    0 * inf is NaN. So the difference is set to 0 *before* anyone exponentiates it.

    Args:
        logps_BT: (B, T) log-probabilities in nats, current policy.
        other_logps_BT: (B, T) log-probabilities of the old or the reference policy.
        mask_BT: (B, T) bool, where the difference is meant.

    Returns:
        (B, T) `logps - other_logps`, 0 outside the mask.
    """
    return torch.where(mask_BT, logps_BT - other_logps_BT, 0.0)


def clipped_surrogate(
    ratio_BT: Tensor, advantages_BT: Tensor, epsilon: float, epsilon_high: float, dual_clip: float | None = None
) -> Tensor:
    """Per-token loss of the clipped surrogate: -min(rho A, clip(rho, 1 - eps, 1 + eps_high) A).

    PPO (arXiv 1707.06347, eq. 7); DAPO's clip-higher (arXiv 2503.14476, eq. 8) is `epsilon_high > epsilon`.
    Dual clip (arXiv 1912.09729, eq. 5): where A < 0 the loss is at most -c A, so that one token with a huge ratio
    cannot dominate.

    Args:
        ratio_BT: (B, T) importance ratios, current over old policy.
        advantages_BT: (B, T), or broadcastable to it.
        epsilon: lower clip range.
        epsilon_high: upper clip range.
        dual_clip: c > 1, or None for off.

    Returns:
        (B, T) losses to minimise.
    """
    unclipped = ratio_BT * advantages_BT
    clipped = ratio_BT.clamp(1 - epsilon, 1 + epsilon_high) * advantages_BT
    loss_BT = -torch.minimum(unclipped, clipped)
    if dual_clip is None:
        return loss_BT
    return torch.where(advantages_BT < 0, torch.minimum(loss_BT, -dual_clip * advantages_BT), loss_BT)


def k3_divergence(log_ratio_BT: Tensor) -> Tensor:
    """Schulman's k3 estimate of KL(policy || reference) per sampled token: exp(-d) + d - 1 with d = log pi/pi_ref.

    Unbiased under samples of the policy, never negative (http://joschu.net/blog/kl-approx.html).

    Args:
        log_ratio_BT: (B, T) d, current minus reference log-probability in nats.

    Returns:
        (B, T) nats.
    """
    return torch.expm1(-log_ratio_BT) + log_ratio_BT  # exp(-d) - 1 cancels to a negative number for a small d
