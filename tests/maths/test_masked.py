"""Statistics over a mask, on one process and pooled over ranks."""

import math

import pytest
import torch
import torch.distributed as dist
from hypothesis import given
from hypothesis import strategies as st

from rlvr.maths.masked import last_true, masked_mean, reduce_sum
from tests.ranks import run_ranks


def test_the_mean_ignores_what_stands_outside_the_mask() -> None:
    values = torch.tensor([[1.0, math.nan, 2.0], [math.inf, 6.0, -math.inf]])
    mask = torch.tensor([[True, False, True], [False, True, False]])
    assert masked_mean(values, mask).item() == 3.0


def test_the_mean_over_an_empty_mask_is_zero() -> None:
    assert masked_mean(torch.full((2, 3), math.nan), torch.zeros(2, 3, dtype=torch.bool)).item() == 0.0
    assert masked_mean(torch.zeros(0, 3), torch.zeros(0, 3, dtype=torch.bool)).item() == 0.0


def test_the_mean_of_booleans_is_a_share_and_of_many_float32_values_is_exact() -> None:
    assert masked_mean(torch.tensor([True, False, True, True]), torch.ones(4, dtype=torch.bool)).item() == 0.75
    values = torch.full((1 << 20,), 0.1)
    assert masked_mean(values, values > 0).item() == pytest.approx(float(torch.tensor(0.1)), rel=1e-12)


def test_ranks_pool_their_tokens_not_their_means() -> None:
    def pooled(rank: int) -> tuple[float, float, list[int]]:
        values = torch.tensor([1.0, 2.0, 3.0]) if rank == 0 else torch.tensor([10.0, math.nan, 5.0])
        mask = torch.tensor([True, True, True]) if rank == 0 else torch.tensor([True, False, False])
        mean = masked_mean(values, mask, dist.group.WORLD).item()
        return mean, masked_mean(values, mask).item(), reduce_sum(torch.tensor([rank, 1]), dist.group.WORLD).tolist()

    assert run_ranks(2, pooled) == [(4.0, 2.0, [1, 2]), (4.0, 10.0, [1, 2])]


def test_a_sum_without_a_group_stays_as_it_is() -> None:
    assert reduce_sum(torch.tensor([3, 4])).tolist() == [3, 4]


@given(st.integers(0, 6).flatmap(lambda width: st.lists(st.lists(st.booleans(), min_size=width, max_size=width))))
def test_last_true_is_the_last_index_that_holds_plus_one(rows: list[list[bool]]) -> None:
    mask = torch.tensor(rows, dtype=torch.bool).reshape(len(rows), len(rows[0]) if rows else 0)
    expected = [max((index + 1 for index, value in enumerate(row) if value), default=0) for row in rows]
    result = last_true(mask)
    assert result.dtype == torch.int64
    assert result.tolist() == expected
