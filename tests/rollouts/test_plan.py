"""Planning loses no row, overfills no slice, and always makes the same number of slices."""

import itertools
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlvr.rollouts.plan import SLICE_TOKENS, padded_tokens, plan_slices, unplanned_slices


@st.composite
def problems(draw: Any) -> tuple[list[int], list[int], int, int]:
    """(rows, lengths, slices, most) that fit."""
    lengths = draw(st.lists(st.integers(0, 20), min_size=1, max_size=30))
    rows = draw(st.lists(st.sampled_from(range(len(lengths))), unique=True))
    slices = draw(st.integers(1, 6))
    least = -(-len(rows) // slices)
    return rows, lengths, slices, draw(st.integers(max(least, 1), 40))


def fits(part: list[int], lengths: list[int], most: int, longest: int) -> bool:
    return len(part) * max((lengths[row] for row in part), default=0) <= most * longest


@given(problems())
def test_every_row_once_in_a_fixed_number_of_slices_of_limited_size(problem: tuple) -> None:
    rows, lengths, slices, most = problem
    plan = plan_slices(rows, lengths, slices, most)
    longest = max((lengths[row] for row in rows), default=0)
    assert len(plan) == slices
    assert sorted(row for part in plan for row in part) == sorted(rows)
    assert all(fits(part, lengths, most, longest) for part in plan)
    assert [bool(part) for part in plan] == sorted((bool(part) for part in plan), reverse=True), "empty ones come last"


def least_cost(lengths: list[int], slices: int, most: int) -> int:
    """Over every way to put rows into slices."""
    rows, longest = range(len(lengths)), max(lengths)
    plans = (
        [[row for row in rows if chosen[row] == part] for part in range(slices)]
        for chosen in itertools.product(range(slices), repeat=len(lengths))
    )
    return min(cost(plan, lengths) for plan in plans if all(fits(part, lengths, most, longest) for part in plan))


def cost(plan: list[list[int]], lengths: list[int]) -> int:
    return padded_tokens(plan, lengths) + SLICE_TOKENS * sum(map(bool, plan))


@given(st.lists(st.integers(1, 12).map(lambda n: 40 * n), min_size=1, max_size=6), st.integers(1, 3), st.integers(0, 3))
def test_no_other_plan_costs_less(lengths: list[int], slices: int, spare: int) -> None:
    most = -(-len(lengths) // slices) + spare
    plan = plan_slices(range(len(lengths)), lengths, slices, most)
    assert cost(plan, lengths) == least_cost(lengths, slices, most)


def test_short_rows_share_a_slice_worked_by_hand() -> None:
    # Two slices of at most 3 * 1000 tokens: (1000) and (400, 400, 300, 100) make 1000 + 1600, (1000, 400) and
    # (400, 300, 100) 2000 + 1200.
    lengths = [400, 1000, 100, 400, 300]
    assert plan_slices(range(5), lengths, 2, 3) == [[1], [0, 3, 4, 2]]
    assert SLICE_TOKENS == 128
    assert plan_slices(range(3), [300, 250, 250], 3, 3) == [[0, 1, 2], [], []], "apart they save 100 and cost 128 more"
    assert plan_slices(range(3), [300, 200, 200], 3, 3) == [[0], [1, 2], []], "apart they save 200"


def test_many_rows_are_moved_in_blocks_and_stay_near_the_optimum(monkeypatch: pytest.MonkeyPatch) -> None:
    random = Random(0)
    lengths = [random.randint(1, 400) for _ in range(96)]
    best = cost(plan_slices(range(96), lengths, 12, 8), lengths)
    monkeypatch.setattr("rlvr.rollouts.plan.UNITS_AT_MOST", 24)
    plan = plan_slices(range(96), lengths, 12, 8)
    assert sorted(row for part in plan for row in part) == list(range(96))
    assert best <= cost(plan, lengths) <= best + 4 * (max(lengths) - min(lengths))


@given(problems())
def test_rows_come_longest_first_and_ties_in_their_own_order(problem: tuple) -> None:
    rows, lengths, slices, most = problem
    flat = [row for part in plan_slices(rows, lengths, slices, most) for row in part]
    assert [(-lengths[row], row) for row in flat] == sorted((-lengths[row], row) for row in rows)


@given(problems(), st.randoms())
def test_the_plan_does_not_depend_on_the_order_of_the_rows_given(problem: tuple, random: Any) -> None:
    rows, lengths, slices, most = problem
    shuffled = random.sample(rows, len(rows))
    assert plan_slices(shuffled, lengths, slices, most) == plan_slices(rows, lengths, slices, most)


@given(st.lists(st.integers(1, 20), min_size=1, max_size=24), st.integers(1, 6))
def test_sorting_never_forwards_more_padding(lengths: list[int], most: int) -> None:
    lengths = lengths[: len(lengths) // most * most] or lengths[:1] * most
    rows = list(range(len(lengths)))
    slices = len(rows) // most
    planned = padded_tokens(plan_slices(rows, lengths, slices, most), lengths)
    assert planned <= padded_tokens(unplanned_slices(rows, slices, most), lengths) + SLICE_TOKENS * slices
    assert planned >= sum(lengths)


def test_unplanned_slices_keep_every_row_in_its_place() -> None:
    assert unplanned_slices([4, 1, 3, 0], 2, 2) == [[4, 1], [3, 0]]


def test_padded_tokens_worked_by_hand() -> None:
    assert padded_tokens([[0, 1], [2], []], [3, 5, 2]) == 2 * 5 + 2


def test_rows_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="5 rows do not fit into 2 slices of at most 2"):
        plan_slices(range(5), [1] * 5, 2, 2)
    with pytest.raises(ValueError, match="3 rows do not fill 2 slices of 2"):
        unplanned_slices(range(3), 2, 2)
