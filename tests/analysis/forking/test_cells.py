"""Branches, cells, what they cost, and the stride that a budget allows: by hand."""

import pytest

from rlvr.analysis.forking.cells import (
    START,
    CellKey,
    cells_of,
    check_budget,
    cost_of,
    fitting_stride,
    looked_at,
)
from rlvr.analysis.forking.path import BasePath, branches_of
from rlvr.analysis.forking.settings import ForkSettings
from rlvr.errors import UserError

END = 1
BASE = BasePath([5, 6, 7, END], [0.1] * 4, [[(5, 0.9)], [(6, 0.5), (8, 0.5)], [(7, 0.8), (END, 0.2)], [(END, 1.0)]])
"""Four tokens. At the second there is one other, at the third the end-of-text token might have come."""

SETTINGS = ForkSettings(samples=10, start_samples=20)


def test_branches_by_hand() -> None:
    likeliest, probs = [3, 9, 4, 2], [0.5, 0.3, 0.05, 0.01]
    assert branches_of(3, 0.5, likeliest, probs, SETTINGS) == [(3, 0.5), (9, 0.3)]
    # The base token is a branch though it is below the threshold, or not among the likeliest at all.
    assert branches_of(2, 0.01, likeliest, probs, SETTINGS) == [(2, 0.01), (3, 0.5), (9, 0.3)]
    assert branches_of(7, 0.001, likeliest, probs, SETTINGS) == [(7, 0.001), (3, 0.5), (9, 0.3)]
    # A probability of exactly the threshold is not above it.
    assert branches_of(3, 0.5, likeliest, probs, ForkSettings(threshold=0.049))[1:] == [(9, 0.3), (4, 0.05)]
    assert branches_of(3, 0.5, likeliest, probs, ForkSettings(alternates=1, threshold=0))[1:] == [(9, 0.3)]
    assert branches_of(3, 0.5, likeliest, probs, ForkSettings(alternates=0)) == [(3, 0.5)]


def test_cells_by_hand() -> None:
    cells = cells_of(BASE, SETTINGS, limit=8, ends={END})
    assert [(cell.key, cell.prefix, cell.samples, cell.limit) for cell in cells] == [
        (CellKey(START, START), [], 20, 8),
        (CellKey(0, 5), [5], 10, 7),
        (CellKey(1, 6), [5, 6], 10, 6),
        (CellKey(1, 8), [5, 8], 10, 6),
        (CellKey(2, 7), [5, 6, 7], 10, 5),
        (CellKey(2, END), [5, 6, END], 1, 0),  # the answer has ended: one outcome, and nothing to draw
        (CellKey(3, END), [5, 6, 7, END], 1, 0),
    ]


def test_a_branch_without_room_is_cut_at_once() -> None:
    cells = cells_of(BASE, SETTINGS, limit=3, ends={END})
    assert [(cell.samples, cell.limit) for cell in cells if cell.key == CellKey(2, 7)] == [(1, 0)]


def test_cost_by_hand() -> None:
    """20 + 4 * 10 answers. At most 20 * 8 + 10 * (7 + 6 + 6 + 5); like the base 20 * 4 + 10 * (3 + 2 + 2 + 1)."""
    cost = cost_of(cells_of(BASE, SETTINGS, 8, {END}), 4)
    assert (cost.continuations, cost.tokens_at_most, cost.tokens_like_base) == (60, 400, 160)


@pytest.mark.parametrize("stride", [1, 2, 3, 4, 9])
def test_a_stride_looks_at_some_of_the_same_cells(stride: int) -> None:
    every = cells_of(BASE, SETTINGS, 8, {END})
    some = cells_of(BASE, ForkSettings(samples=10, start_samples=20, stride=stride), 8, {END})
    assert some == [cell for cell in every if cell.key.position == START or cell.key.position % stride == 0]
    assert looked_at(BASE, stride) == list(range(0, 4, stride))


@pytest.mark.parametrize(("budget", "stride"), [(60, 1), (59, 2), (40, 2), (39, 3), (30, 3), (29, None)])
def test_the_stride_that_fits(budget: int, stride: int | None) -> None:
    """Continuations: 60 for stride 1, 20 + 10 + 10 for 2, 20 + 10 for 3 and 4."""
    cells = cells_of(BASE, SETTINGS, 8, {END})
    assert fitting_stride(cells, 4, budget) == stride


def test_more_than_the_budget_is_refused_with_what_would_fit() -> None:
    cells = cells_of(BASE, SETTINGS, 8, {END})
    check_budget(cost_of(cells, 4), cells, 4, 60)
    with pytest.raises(
        UserError, match=r"60 continuations .* --budget is 45; take --stride 2, which fits, or --budget"
    ):
        check_budget(cost_of(cells, 4), cells, 4, 45)
    with pytest.raises(UserError, match="take fewer --samples and --start-samples, or --budget 60, or --yes"):
        check_budget(cost_of(cells, 4), cells, 4, 10)


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"samples": 0}, "--samples is 0"), ({"start_samples": 0}, "--start-samples is 0"), ({"stride": 0}, "--stride"),
        ({"alternates": -1}, "--alternates is -1"), ({"threshold": 1.0}, "--threshold is 1.0"),
        ({"temperature": 0.0}, "--temperature is 0.0"), ({"max_tokens": 0}, "--max-tokens is 0"),
        ({"base": "best"}, "--base is 'best'"), ({"epsilon": 0.0}, "--epsilon"), ({"alpha": 0.001}, "--alpha is 0.001"),
    ],
)  # fmt: skip
def test_settings_that_are_none(values: dict, text: str) -> None:
    with pytest.raises(UserError, match=rf"^{text}.*expected"):
        ForkSettings(**values)
