"""KTAE: the worked example's sum, groups of one kind, shaping, and the variant."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from rlvr.advantages.grpo import grpo_advantages
from rlvr.advantages.ktae import KTAE, ktae_advantages
from rlvr.config.convert import build_variant
from rlvr.errors import UserError
from rlvr.maths.ktae import key_token_values
from rlvr.maths.rollouts import Rollouts

NAN = math.nan
IDS = torch.tensor(
    [[1, 2, 2, 3], [1, 2, 3, 3], [1, 2, 2, 2], [1, 3, 3, 3], [1, 2, 3, 3], [1, 3, 3, 3], [1, 3, 3, 4], [1, 3, 4, 4]]
)
MASK = torch.ones_like(IDS, dtype=torch.bool)
REWARDS = torch.tensor([1.0, 1, 1, 1, 0, 0, 0, 0])


def rollouts(rewards: Tensor = REWARDS, verdicts: Tensor | None = None, everyone: Tensor | None = None) -> Rollouts:
    all_rewards = rewards if everyone is None else everyone
    return Rollouts(rewards, all_rewards, rewards if verdicts is None else verdicts, 8, IDS, MASK)


def test_the_worked_example() -> None:
    """A = +-.9354 = (1 - 1/2) / sqrt(8 / 4 / 7), plus 0, .6561, -.0345 and -1 for tokens 1 to 4."""
    result = ktae_advantages(IDS, MASK, REWARDS, 8)
    assert result.dtype == torch.float32
    assert result[0].tolist() == pytest.approx([0.9354, 1.5915, 1.5915, 0.9009], abs=6e-5)
    assert result[7].tolist() == pytest.approx([-0.9354, -0.9699, -1.9354, -1.9354], abs=6e-5)
    assert torch.equal(KTAE(special_ids=[])(rollouts()), result)


def test_it_is_the_rollout_advantage_plus_the_token_value() -> None:
    numbers: dict[str, Any] = {"scale": "paper", "fisher": "point", "beta": 2.0, "top": 3.0, "one_sided": "presence"}
    values = key_token_values(IDS, MASK, REWARDS, 8, excluded_ids=[3], **numbers)
    everyone = torch.tensor([2.0, 0.0, 1.0])
    plain = grpo_advantages(REWARDS, 8, "batch", 0.1, everyone)
    variant = KTAE(special_ids=[3], rollout_scale="batch", eps=0.1, **numbers)
    assert torch.equal(variant(rollouts(everyone=everyone)), plain[:, None] + values)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_a_group_of_one_kind_gets_the_plain_advantage(value: float) -> None:
    """Right or wrong all alike, but unlike in a shaped reward: lengths were punished."""
    verdicts = torch.full((8,), value)
    shaped = verdicts - torch.tensor([0.0, 0.1, 0, 0, 0.4, 0, 0, 0.2])
    result = KTAE(special_ids=[])(rollouts(shaped, verdicts))
    assert torch.equal(result, grpo_advantages(shaped, 8, eps=1e-6)[:, None].expand(8, 4))
    assert result.any()


def test_the_split_is_the_verdict_and_not_the_shaped_reward() -> None:
    shaped = REWARDS - torch.tensor([0.0, 1.0, 1.5, 0, 0, 0, 0, 0])  # two right answers, far too long
    result = KTAE(special_ids=[])(rollouts(shaped, REWARDS))
    values = key_token_values(IDS, MASK, REWARDS, 8)
    assert torch.equal(result, grpo_advantages(shaped, 8, eps=1e-6)[:, None] + values)
    assert not torch.equal(result, KTAE(special_ids=[])(rollouts(shaped)))


def test_padding_and_rows_that_nobody_could_score_get_zero() -> None:
    rewards, mask = REWARDS.clone(), MASK.clone()
    rewards[4], mask[0, 2:] = NAN, False
    result = ktae_advantages(IDS, mask, rewards, 8)
    assert torch.equal(result[4], torch.zeros(4))
    assert torch.equal(result[0, 2:], torch.zeros(2))
    assert result.isfinite().all()
    left = [0, 1, 2, 3, 5, 6, 7]
    torch.testing.assert_close(result[left], ktae_advantages(IDS[left], mask[left], REWARDS[left], 7))
    scored_by_shaping = ktae_advantages(IDS, MASK, REWARDS, 8, verdicts=rewards)
    assert torch.equal(scored_by_shaping[4], grpo_advantages(REWARDS, 8, eps=1e-6)[4].expand(4))


def test_special_ids_come_from_the_tokenizer_unless_they_are_set() -> None:
    named = Rollouts(REWARDS, REWARDS, REWARDS, 8, IDS, MASK, special_ids=(4, 151643))
    assert torch.equal(KTAE()(named), ktae_advantages(IDS, MASK, REWARDS, 8, excluded_ids=[4]))
    assert torch.equal(KTAE(special_ids=[2])(named), ktae_advantages(IDS, MASK, REWARDS, 8, excluded_ids=[2]))


def test_the_defaults_are_what_the_released_code_runs() -> None:
    rule = build_variant("advantage", {"name": "ktae"})
    assert (rule.alpha, rule.beta, rule.gamma, rule.top) == (1, 1, 1, 1)
    assert (rule.scale, rule.fisher, rule.ratio_eps, rule.eps) == ("code", "two_sided", 1e-5, 1e-6)
    changed = build_variant("advantage", {"name": "ktae", "beta": 2, "special_ids": [0, 1]})
    assert changed == KTAE(beta=2.0, special_ids=[0, 1])


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"scale": "verl"}, "advantage.scale is 'verl'; expected one of code, paper"),
        ({"fisher": "one"}, "advantage.fisher is 'one'; expected one of two_sided, point"),
        ({"one_sided": "drop"}, "advantage.one_sided is 'drop'; expected one of ratio, presence, zero"),
        ({"gamma": NAN}, "advantage.gamma is nan; expected 0 or a positive number"),
        ({"alpha": 0.0, "beta": 0.0}, "advantage.alpha and beta are both 0"),
        ({"rollout_scale": "std"}, "advantage.rollout_scale is 'std'; expected one of group, batch, none"),
        ({"eps": -1.0}, "advantage.eps is -1.0; expected 0 or a small positive number"),
        ({"special_ids": [3, -1]}, r"advantage.special_ids is \[3, -1\]; expected token ids"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(numbers: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        KTAE(**numbers)
