"""Groups are dealt to ranks in equal numbers and, as far as whole groups allow, in equal work."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlvr.config.algebra import BatchSizes
from rlvr.rollouts.dealing import deal


def sizes(prompts: int, ranks: int, updates: int = 1, window: str = "group", group: int = 4) -> BatchSizes:
    return BatchSizes(prompts, group, updates, micro_batch_rows=1, ranks=ranks, window=window)


def test_worked_by_hand() -> None:
    # 9 to rank 0, 7 and 2 to rank 1; then rank 1 is full, so the last goes to rank 0: 9 + 0 and 7 + 2.
    assert deal([7, 0, 9, 2], sizes(4, 2)) == [1, 0, 0, 1]


def test_every_step_is_dealt_by_itself() -> None:
    # Even groups are step 0, odd ones step 1: each step has a heavy and a light pair.
    assert deal([5, 1, 5, 1, 0, 8, 0, 8], sizes(8, 2, updates=2)) == [0, 0, 1, 1, 0, 0, 1, 1]


def test_one_rank_has_everything_and_uneven_rows_stay_in_contiguous_shares() -> None:
    assert deal([3, 1, 2, 9], sizes(4, 1)) == [0, 0, 0, 0]
    assert deal([0, 0, 9, 9], sizes(4, 2, updates=3, window="row", group=6)) == [0, 1, 0, 1]
    assert deal([0, 0, 9, 9, 0, 0], sizes(6, 2, updates=3, window="row")) == [0, 0, 0, 1, 1, 1]


def test_a_cost_for_each_group() -> None:
    with pytest.raises(ValueError, match="3 costs were given for 4 groups"):
        deal([1, 2, 3], sizes(4, 2))


@given(st.lists(st.integers(0, 50), min_size=4, max_size=8).filter(lambda costs: len(costs) % 2 == 0))
def test_two_ranks_get_equal_numbers_and_nearly_the_best_split(costs: list[int]) -> None:
    ranks = deal(costs, sizes(len(costs), 2))
    assert ranks.count(0) == ranks.count(1)
    groups = range(len(costs))
    best = min(
        max(sum(costs[group] for group in half), sum(costs) - sum(costs[group] for group in half))
        for half in itertools.combinations(groups, len(costs) // 2)
    )
    most = max(sum(cost for cost, where in zip(costs, ranks, strict=True) if where == rank) for rank in (0, 1))
    assert most <= 4 / 3 * best + 1e-9


@given(st.integers(1, 4), st.integers(1, 3), st.integers(1, 3), st.data())
def test_each_rank_has_equally_many_groups_of_each_step(
    ranks: int, updates: int, each: int, data: st.DataObject
) -> None:
    prompts = ranks * updates * each
    costs = data.draw(st.lists(st.integers(0, 9), min_size=prompts, max_size=prompts))
    where = deal(costs, sizes(prompts, ranks, updates))
    for step in range(updates):
        dealt = [where[group] for group in range(step, prompts, updates)]
        assert all(dealt.count(rank) == each for rank in range(ranks))
