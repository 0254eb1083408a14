"""The sum of several rewards, by hand: what is only measured makes no row scorable."""

import math

import torch

from rlvr.advantages.grpo import grpo_advantages
from rlvr.maths.rollouts import total_rewards

NAN = math.nan


def test_a_row_that_only_an_unpaid_reward_scored_is_unscorable() -> None:
    # Paid 1, 1, 1, none; accuracy is measured with weight 0. A 0 in the last row would make it the worst of its group.
    rewards = torch.tensor([[1.0, 1.0], [1.0, 0.0], [1.0, 1.0], [NAN, 0.0]])
    total = total_rewards(rewards, torch.tensor([1.0, 0.0]))
    torch.testing.assert_close(total, torch.tensor([1.0, 1.0, 1.0, NAN]), equal_nan=True)
    assert torch.equal(grpo_advantages(total, 4), torch.zeros(4))


def test_weights_add_up_over_what_was_said() -> None:
    rewards = torch.tensor([[1.0, -0.5, 7.0], [NAN, -0.5, 7.0], [1.0, NAN, NAN], [NAN, NAN, 7.0], [NAN, NAN, NAN]])
    total = total_rewards(rewards, torch.tensor([1.0, 2.0, 0.0]))
    torch.testing.assert_close(total, torch.tensor([0.0, -1.0, 1.0, NAN, NAN]), equal_nan=True)


def test_where_nothing_is_paid_any_reward_scores_a_row_with_0() -> None:
    rewards = torch.tensor([[1.0, NAN], [NAN, NAN]])
    torch.testing.assert_close(total_rewards(rewards, torch.zeros(2)), torch.tensor([0.0, NAN]), equal_nan=True)
