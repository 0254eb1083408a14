"""The rollout batch of one rank, as credit assignment sees it."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Rollouts:
    """What was sampled and how it was judged: B completions, groups contiguous, T tokens right-padded.

    Attributes:
        rewards: (B,) weighted sum of the reward functions, NaN where none that is paid could score the row.
        all_rewards: the rewards of every rank in global row order, for statistics over the whole batch.
        verdicts: (B,) the first reward function's value: the verdict before any shaping, NaN where unscorable.
        group_size: G, completions per prompt.
        token_ids: (B, T) int64.
        mask: (B, T) bool, what was sampled, the end-of-text token included.
        logps: (B, T) log-probabilities (nats) of the policy that sampled, at the sampling temperature, 0 outside the
            mask; None unless the advantage `needs_scores`.
        entropies: (B, T) its entropies (nats), likewise.
        special_ids: of the tokenizer: end of text, padding and the like; None where nobody has said.
    """

    rewards: Tensor
    all_rewards: Tensor
    verdicts: Tensor
    group_size: int
    token_ids: Tensor
    mask: Tensor
    logps: Tensor | None = None
    entropies: Tensor | None = None
    special_ids: tuple[int, ...] | None = None


def total_rewards(rewards: Tensor, weights: Tensor) -> Tensor:
    """The weighted sum of each row's rewards; NaN where none of those that are paid said anything.

    A reward of weight 0 is only measured: its 0 would be the worst or the best of a group that nobody could score.
    Where every weight is 0, any reward makes a row scorable, and the sum is 0.

    Args:
        rewards: (N, functions), before their weights; NaN where a function gave none.
        weights: (functions,).

    Returns:
        (N,) of the rewards' type.
    """
    paid = weights != 0
    counted = rewards[:, paid] if bool(paid.any()) else rewards
    return torch.where(counted.isnan().all(dim=1), torch.nan, (rewards * weights).nansum(dim=1))
