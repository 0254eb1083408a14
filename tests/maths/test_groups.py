"""Group statistics against numpy in float64, with rows that could not be scored."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rlvr.maths.groups import centred, group_std, has_spread, scorable_count

NAN = math.nan
rewards_of_groups = st.integers(1, 5).flatmap(
    lambda size: st.lists(
        st.lists(st.sampled_from([0.0, 1.0, -1.0, 0.1, 0.3, NAN, 1e6]), min_size=size, max_size=size), max_size=4
    ).map(lambda groups: (size, groups))
)


def test_rewards_are_centred_on_their_own_group() -> None:
    rewards = torch.tensor([1.0, 0.0, 0.0, 1.0, 1.0, 0.0])
    expected = torch.tensor([2 / 3, -1 / 3, -1 / 3, 1 / 3, 1 / 3, -2 / 3], dtype=torch.float64)
    torch.testing.assert_close(centred(rewards, 3), expected)


def test_the_standard_deviation_divides_by_n_minus_one() -> None:
    # 1, 1, 1, 0, 0, 0, 0, 0: squares sum to 3 * (5/8)^2 + 5 * (3/8)^2 = 15/8, divided by 7
    expected = torch.full((8,), math.sqrt(15 / 56), dtype=torch.float64)
    torch.testing.assert_close(group_std(torch.tensor([1.0, 1, 1, 0, 0, 0, 0, 0]), 8), expected)


def test_a_row_nobody_could_score_is_left_out_of_its_group() -> None:
    rewards = torch.tensor([1.0, NAN, 0.0, 3.0])
    torch.testing.assert_close(
        centred(rewards, 4), torch.tensor([-1 / 3, NAN, -4 / 3, 5 / 3], dtype=torch.float64), equal_nan=True
    )
    assert scorable_count(rewards, 4).tolist() == [3, 3, 3, 3]
    torch.testing.assert_close(group_std(rewards, 4)[0].item(), np.std([1, 0, 3], ddof=1))


def test_a_group_without_any_score_has_no_spread_and_a_zero_deviation() -> None:
    rewards = torch.tensor([NAN, NAN, 1.0, 0.0])
    assert centred(rewards, 2).isnan().tolist() == [True, True, False, False]
    assert has_spread(rewards, 2).tolist() == [False, False, True, True]
    assert group_std(rewards, 2).tolist()[:2] == [0.0, 0.0]
    assert scorable_count(rewards, 2).tolist() == [0, 0, 2, 2]


@pytest.mark.parametrize("value", [math.inf, -math.inf])
def test_an_infinite_reward_counts_as_unscorable_and_leaves_the_rest_of_its_group_finite(value: float) -> None:
    rewards = torch.tensor([value, 1.0, 0.0, value, value, 2.0])
    torch.testing.assert_close(
        centred(rewards, 3), torch.tensor([NAN, 0.5, -0.5, NAN, NAN, 0.0], dtype=torch.float64), equal_nan=True
    )
    assert has_spread(rewards, 3).tolist() == [True] * 3 + [False] * 3
    assert scorable_count(rewards, 3).tolist() == [2, 2, 2, 1, 1, 1]


@pytest.mark.parametrize("value", [0.1, 1 / 3, -7.7, 1e20, 1e-30])
@pytest.mark.parametrize("size", [1, 3, 7])
def test_equal_rewards_give_exactly_zero(value: float, size: int) -> None:
    rewards = torch.full((2 * size,), value)
    rewards[0] = NAN if size > 1 else value
    assert torch.equal(centred(rewards, size).nan_to_num(0.0), torch.zeros(2 * size, dtype=torch.float64))
    assert torch.equal(group_std(rewards, size), torch.zeros(2 * size, dtype=torch.float64))
    assert not has_spread(rewards, size).any()


@given(rewards_of_groups)
def test_numpy_finds_the_same_statistics(case: tuple[int, list[list[float]]]) -> None:
    size, groups = case
    rewards = torch.tensor([reward for group in groups for reward in group], dtype=torch.float64)
    values, std, spread = centred(rewards, size), group_std(rewards, size), has_spread(rewards, size)
    assert values.shape == std.shape == spread.shape == rewards.shape
    for index, group in enumerate(groups):
        rows = slice(index * size, (index + 1) * size)
        scored = np.array([reward for reward in group if not math.isnan(reward)])
        expected = [reward - scored.mean() if not math.isnan(reward) else NAN for reward in group]
        np.testing.assert_allclose(values[rows].numpy(), expected, rtol=1e-12, atol=1e-9)
        np.testing.assert_allclose(
            std[rows].numpy(), scored.std(ddof=1) if len(scored) > 1 else 0.0, rtol=1e-9, atol=1e-9
        )
        assert spread[rows].tolist() == [len(set(scored.tolist())) > 1] * size


@pytest.mark.parametrize("function", [centred, group_std, has_spread, scorable_count])
@pytest.mark.parametrize("size", [0, 2, -5])
def test_rewards_that_do_not_divide_into_groups_are_refused(function, size: int) -> None:
    with pytest.raises(ValueError, match=f"5 rewards do not divide into groups of {size}; expected whole"):
        function(torch.zeros(5), size)
