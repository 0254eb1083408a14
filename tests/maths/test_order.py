"""The radix select against sorting, and what it sends."""

import math
import resource
from itertools import pairwise

import pytest
import torch
import torch.distributed as dist
from hypothesis import given
from hypothesis import strategies as st

from rlvr.maths import order
from rlvr.maths.order import (
    FLOAT_BITS,
    HASH_BITS,
    NO_FLOAT,
    from_sortable_key,
    kth_largest,
    kth_largest_key,
    random_keys,
    sortable_keys,
)
from tests.ranks import run_ranks
from tests.selection.oracle import splitmix64

AWKWARD = [0.0, -0.0, 2.0**-149, -(2.0**-149), 1.0, -1.0, 2.0**127, -(2.0**127), math.inf, -math.inf, 1 + 2.0**-23]
float32s = st.floats(width=32, allow_nan=False) | st.sampled_from(AWKWARD)


@given(st.lists(float32s, min_size=1, max_size=40), st.data())
def test_sorting_finds_the_same_value(values: list[float], data: st.DataObject) -> None:
    k = data.draw(st.integers(1, len(values)))
    assert kth_largest(torch.tensor(values), k) == sorted(values, reverse=True)[k - 1]


@pytest.mark.parametrize("size", [1, 2, 1000, 33_000, 200_001])
@pytest.mark.parametrize("kind", ["distinct", "ties", "equal", "negative"])
def test_topk_finds_the_same_value_at_any_size(size: int, kind: str) -> None:
    values = torch.randn(size, generator=torch.Generator().manual_seed(size))
    values = {"distinct": values, "ties": values.round(), "equal": values * 0 + 0.3, "negative": -values.abs()}[kind]
    for k in sorted({1, (size + 4) // 5, size}):
        assert kth_largest(values, k) == torch.topk(values, k).values[-1].item()


def test_values_are_read_again_when_too_many_share_their_first_digits(monkeypatch: pytest.MonkeyPatch) -> None:
    values = 1 + torch.rand(3000, generator=torch.Generator().manual_seed(0)) * 1e-3
    monkeypatch.setattr(order, "CACHED_KEYS", 10)
    assert kth_largest(values, 700) == values.sort(descending=True).values[699].item()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_floats_are_compared_in_float32(dtype: torch.dtype) -> None:
    values = torch.randn(500, generator=torch.Generator().manual_seed(1)).to(dtype)
    assert kth_largest(values, 100) == values.float().sort(descending=True).values[99].item()


@pytest.mark.parametrize("k", [0, -1, 4])
def test_a_k_out_of_range_is_refused_with_the_range(k: int) -> None:
    with pytest.raises(ValueError, match=f"k is {k}, expected 1 to 3, the number of values"):
        kth_largest(torch.zeros(3), k)


def test_no_values_have_no_kth() -> None:
    with pytest.raises(ValueError, match="k is 1, expected 1 to 0"):
        kth_largest(torch.zeros(0), 1)


@given(st.lists(float32s, min_size=2, max_size=30))
def test_keys_are_ordered_as_their_values_are(values: list[float]) -> None:
    keys = sortable_keys(torch.tensor(values))
    assert keys.dtype == torch.int32
    assert keys.min() > NO_FLOAT
    for (a, key_a), (b, key_b) in pairwise(zip(values, keys, strict=True)):
        assert (a < b) == bool(key_a < key_b)
        assert (a == b) == bool(key_a == key_b)
    assert [from_sortable_key(int(key)) for key in keys] == values


@given(st.lists(st.integers(0, 2**62 - 1) | st.integers(0, 5), min_size=1, max_size=30), st.data())
def test_wide_keys_come_with_how_many_are_larger_and_equal(numbers: list[int], data: st.DataObject) -> None:
    k = data.draw(st.integers(1, len(numbers)))
    chunks = [torch.tensor([*numbers[:3], -1]), torch.tensor([[-1, -1]]), torch.tensor(numbers[3:], dtype=torch.int64)]
    cut = kth_largest_key(lambda: chunks, k, HASH_BITS, torch.device("cpu"))
    expected = sorted(numbers, reverse=True)[k - 1]
    assert cut == (expected, sum(n > expected for n in numbers), numbers.count(expected))


def test_ranks_of_unequal_size_agree_and_send_three_messages_of_16_kib() -> None:
    values = torch.randn(1001, generator=torch.Generator().manual_seed(5)).round(decimals=2)
    parts = [values[:900], values[900:900], values[900:]]

    def select(rank: int) -> tuple[list[float], list[int]]:
        sizes, plain = [], dist.all_reduce

        def counting(tensor: torch.Tensor, **where: object) -> object:
            sizes.append(tensor.numel() * tensor.element_size())
            return plain(tensor, **where)

        dist.all_reduce = counting
        return [kth_largest(parts[rank], k, dist.group.WORLD) for k in (1, 200, 1001)], sizes

    expected = [values.sort(descending=True).values[k - 1].item() for k in (1, 200, 1001)]
    assert run_ranks(3, select) == [(expected, [16 * 1024] * 9)] * 3


def test_every_rank_refuses_a_k_that_is_too_large() -> None:
    def select(rank: int) -> str:
        with pytest.raises(ValueError, match="expected 1 to 5, the number of values") as caught:
            kth_largest(torch.zeros(2 + rank), 6, dist.group.WORLD)
        return str(caught.value)

    assert len(set(run_ranks(2, select))) == 1


def test_more_values_than_torch_quantile_takes_are_selected_in_bounded_extra_memory() -> None:
    size, k = 2**25, 2**25 // 5
    with pytest.raises(RuntimeError, match="too large"):
        torch.quantile(torch.zeros(size), 0.8)

    def select(rank: int) -> tuple[bool, float]:  # in a process of its own, whose peak memory starts here
        values = torch.arange(size, dtype=torch.float32).mul_(-0.5)  # distinct and in order: the k-th is known
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        right = kth_largest(values, k) == values[k - 1].item()
        return right, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024

    [(right, extra_mib)] = run_ranks(1, select)
    assert right
    assert extra_mib < 200  # 64 of held keys, and what the allocator wastes; a copy as int64 keys would be 256


@pytest.mark.parametrize(("seed", "step"), [(0, 0), (42, 7), (-1, 2**40)])
def test_random_keys_are_splitmix64_of_the_four_counters(seed: int, step: int) -> None:
    rows, tokens = torch.meshgrid(torch.tensor([0, 3, 2**30]), torch.arange(5), indexing="ij")
    expected = [[splitmix64(seed, step, int(r), int(t)) for t in range(5)] for r in (0, 3, 2**30)]
    assert random_keys(seed, step, rows, tokens).tolist() == expected


def test_random_keys_are_distinct_and_spread_evenly() -> None:
    rows, tokens = torch.meshgrid(torch.arange(300), torch.arange(200), indexing="ij")
    keys = random_keys(1, 2, rows, tokens).flatten()
    assert keys.unique().numel() == keys.numel()
    counts = torch.bincount(keys >> (HASH_BITS - 4), minlength=16)
    assert (counts - 3750).abs().max() < 5 * math.sqrt(3750)
    assert FLOAT_BITS < HASH_BITS
