"""Advantages: the worked example of each estimator, TRL's own formula, and rows nobody could score."""

import math

import pytest
import torch
from trl.trainer.utils import nanstd

from rlvr.advantages.base import Advantage
from rlvr.advantages.dr_grpo import DrGRPO, centred_rewards
from rlvr.advantages.grpo import GRPO, grpo_advantages
from rlvr.advantages.rloo import RLOO, leave_one_out
from rlvr.errors import UserError
from rlvr.maths.rollouts import Rollouts

NAN = math.nan
REWARDS = torch.tensor([1.0, 1, 1, 0, 0, 0, 0, 0])


def rollouts(rewards: torch.Tensor, group_size: int, all_rewards: torch.Tensor | None = None) -> Rollouts:
    ids = torch.zeros(len(rewards), 2, dtype=torch.int64)
    everyone = rewards if all_rewards is None else all_rewards
    return Rollouts(rewards, everyone, rewards, group_size, ids, torch.ones_like(ids, dtype=torch.bool))


@pytest.mark.parametrize(
    ("advantage", "good", "bad"),
    [
        (GRPO(eps=0.0), 1.2076, -0.7246),  # 5/8 / sqrt(15/56)
        (GRPO(), 1.2074, -0.7244),  # TRL: eps 1e-4
        (DrGRPO(), 0.625, -0.375),
        (GRPO(scale="none"), 0.625, -0.375),
        (RLOO(), 0.71429, -0.42857),  # 1 - 2/7 and 0 - 3/7
    ],
)
def test_three_right_of_eight(advantage: Advantage, good: float, bad: float) -> None:
    result = advantage(rollouts(REWARDS, 8))
    assert result.dtype == torch.float32
    assert result.tolist() == pytest.approx([good] * 3 + [bad] * 5, abs=5e-5)


def test_rloo_is_the_reward_minus_the_mean_of_the_others() -> None:
    rewards = torch.tensor([-1.2, -2.0, -0.8, -1.6])
    assert leave_one_out(rewards, 4).tolist() == pytest.approx([0.26667, -0.8, 0.8, -0.26667], abs=1e-5)
    values = torch.randn(30, generator=torch.Generator().manual_seed(0))
    expected = [(values[g - g % 6 : g - g % 6 + 6].sum() - values[g]) / 5 for g in range(30)]
    torch.testing.assert_close(leave_one_out(values, 6), values - torch.stack(expected))


def trl_advantages(rewards: torch.Tensor, group_size: int, scale: str) -> torch.Tensor:
    """trl.GRPOTrainer._generate_and_score_completions, TRL 1.16, followed by its handling of unscored rows."""
    grouped = rewards.view(-1, group_size)
    centred = rewards - torch.nanmean(grouped, dim=1).repeat_interleave(group_size)
    if scale == "none":
        return centred
    std = nanstd(grouped, dim=1).repeat_interleave(group_size) if scale == "group" else nanstd(rewards)
    return centred / (std + 1e-4)


@pytest.mark.parametrize("scale", ["group", "batch", "none"])
def test_trl_computes_the_same_advantages(scale: str) -> None:
    generator = torch.Generator().manual_seed(0)
    rewards = torch.randn(40, generator=generator)
    rewards[::7] = NAN
    expected = trl_advantages(rewards, 8, scale).nan_to_num(0.0)
    torch.testing.assert_close(grpo_advantages(rewards, 8, scale), expected, atol=1e-6, rtol=1e-5)


def test_scale_batch_divides_by_the_deviation_of_every_ranks_rewards() -> None:
    rewards, everyone = torch.tensor([1.0, 0.0]), torch.tensor([1.0, 0.0, 4.0, 3.0, NAN, math.inf])
    # 1, 0, 4, 3: mean 2, squares 1 + 4 + 4 + 1 = 10, divided by 3
    expected = 0.5 / (math.sqrt(10 / 3) + 1e-4)
    result = GRPO(scale="batch")(rollouts(rewards, 2, everyone))
    assert result.tolist() == pytest.approx([expected, -expected])
    alone = 0.5 / (math.sqrt(0.5) + 1e-4)  # without the other ranks' rewards: 1 and 0
    assert grpo_advantages(rewards, 2, "batch").tolist() == pytest.approx([alone, -alone])


ADVANTAGES = [
    GRPO(),
    GRPO(eps=0.0),
    GRPO(scale="batch"),
    GRPO(scale="batch", eps=0.0),
    GRPO(scale="none"),
    DrGRPO(),
    RLOO(),
]


@pytest.mark.parametrize("advantage", ADVANTAGES, ids=str)
class TestEveryAdvantage:
    """What holds whatever the estimator."""

    @pytest.mark.parametrize("value", [0.1, 1 / 3, -1.0, 1e6])
    def test_a_group_of_equal_rewards_gets_exactly_zero(self, advantage: Advantage, value: float) -> None:
        rewards = torch.tensor([value] * 7 + [1.0, 0.0] * 3 + [0.0])
        result = advantage(rollouts(rewards, 7))
        assert torch.equal(result[:7], torch.zeros(7))
        assert (result[7:] != 0).all()

    def test_a_row_nobody_could_score_gets_zero_and_moves_no_one(self, advantage: Advantage) -> None:
        with_gap = advantage(rollouts(torch.tensor([1.0, NAN, 0.0, 0.0]), 4))
        without = advantage(rollouts(torch.tensor([1.0, 0.0, 0.0]), 3))
        assert with_gap[1] == 0
        torch.testing.assert_close(with_gap[[0, 2, 3]], without)

    @pytest.mark.parametrize("bad", [NAN, math.inf, -math.inf])
    def test_the_result_is_finite_whatever_the_rewards(self, advantage: Advantage, bad: float) -> None:
        rewards = torch.tensor([bad, bad, bad, bad, bad, 1.0, bad, 0.0, 2.0])
        result = advantage(rollouts(rewards, 3))
        assert result.isfinite().all()
        assert result.tolist()[:7] == [0.0] * 7  # no score, one score alone, an unscored row

    def test_a_group_of_one_has_nothing_to_be_compared_with(self, advantage: Advantage) -> None:
        assert advantage(rollouts(torch.tensor([1.0, -3.0, NAN]), 1)).tolist() == [0.0, 0.0, 0.0]

    def test_an_empty_batch_gives_an_empty_result(self, advantage: Advantage) -> None:
        assert advantage(rollouts(torch.zeros(0), 4)).shape == (0,)

    def test_advantages_of_a_group_sum_to_zero(self, advantage: Advantage) -> None:
        rewards = torch.randn(24, generator=torch.Generator().manual_seed(0))
        torch.testing.assert_close(
            advantage(rollouts(rewards, 8)).view(3, 8).sum(dim=1), torch.zeros(3), atol=2e-6, rtol=0
        )

    def test_rewards_that_do_not_divide_into_groups_are_refused(self, advantage: Advantage) -> None:
        with pytest.raises(ValueError, match="8 rewards do not divide into groups of 3"):
            advantage(rollouts(REWARDS, 3))


def test_dr_grpo_is_grpo_without_a_scale() -> None:
    rewards = torch.randn(24, generator=torch.Generator().manual_seed(1))
    assert torch.equal(centred_rewards(rewards, 8), grpo_advantages(rewards, 8, "none"))


def test_an_advantage_that_does_not_say_how_is_refused_by_name() -> None:
    with pytest.raises(TypeError, match="Advantage does not say how it assigns credit; define __call__"):
        Advantage()(rollouts(REWARDS, 8))


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"scale": "std"}, "advantage.scale is 'std'; expected one of group, batch, none"),
        ({"eps": -1e-4}, "advantage.eps is -0.0001; expected 0 or a small positive number"),
        ({"eps": NAN}, "advantage.eps is nan; expected"),
        ({"eps": math.inf}, "advantage.eps is inf; expected"),
    ],
)
def test_numbers_that_make_no_sense_are_refused_with_what_was_expected(numbers: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        GRPO(**numbers)


def test_the_function_refuses_an_unknown_scale() -> None:
    with pytest.raises(ValueError, match="scale is 'std'; expected one of group, batch, none"):
        grpo_advantages(REWARDS, 8, "std")
