"""The global top 20 % of 2**26 entropies: time against a peer, memory and messages; `torch.quantile` refuses."""

import time

import pytest
import torch
import torch.distributed as dist

from rlvr.selection.select import TokenSelection, select_tokens
from scripts.bench_selection import extra_bytes, kthvalue, make_batch, sent_bytes
from tests.ranks import run_ranks

ROWS, LENGTH = 2**15, 2**11
KEPT = 13_421_773  # the fifth of 2**26 is 13,421,772.8


@pytest.mark.slow
def test_it_takes_no_longer_than_a_threshold_by_kthvalue_and_quantile_refuses() -> None:
    def measure(rank: int) -> tuple[list[float], list[float], int]:  # one thread, as chunks are worked on by one
        batch, ours, peer = make_batch(ROWS * LENGTH, LENGTH, "cpu"), [], []
        with pytest.raises(RuntimeError, match="too large"):
            torch.quantile(batch[0].view(-1), 0.8)
        for _ in range(3):
            start = time.perf_counter()
            kept = select_tokens(*batch).kept
            middle = time.perf_counter()
            kthvalue(*batch, 0.2)
            ours.append(middle - start)
            peer.append(time.perf_counter() - middle)
        return ours, peer, kept

    [(ours, peer, kept)] = run_ranks(1, measure)
    assert kept == KEPT
    assert sorted(ours)[1] < sorted(peer)[1]  # a third of it where nothing else runs


@pytest.mark.slow
@pytest.mark.parametrize("rule", ["top_entropy", "bottom_entropy", "random"])
def test_its_extra_memory_with_the_mask_is_less_than_half_of_the_entropies(rule: str) -> None:
    """The mask alone is a quarter; 32 MiB, an eighth, may hold keys; candidates are not copied."""

    def measure(rank: int) -> tuple[float, int]:
        entropies_BT, mask_BT = make_batch(ROWS * LENGTH, LENGTH, "cpu")
        result: list[TokenSelection] = []

        def call() -> None:
            result.append(select_tokens(entropies_BT, mask_BT, rule=rule, candidates=mask_BT.any(dim=1)))

        return extra_bytes(call) / (4 * entropies_BT.numel()), int(result[0].mask.sum())

    [(share, kept)] = run_ranks(1, measure)
    assert kept == (KEPT - 1 if rule == "bottom_entropy" else KEPT)  # the complement of the top 0.8, rounded up
    assert 0.25 < share < 0.5


@pytest.mark.slow
def test_two_ranks_send_less_than_a_megabyte_each() -> None:
    def measure(rank: int) -> tuple[int, int, int]:
        entropies_BT, mask_BT = make_batch(ROWS * LENGTH // 2, LENGTH, "cpu")
        result: list[TokenSelection] = []
        group = dist.group.WORLD
        sent = sent_bytes(lambda: result.append(select_tokens(entropies_BT, mask_BT, process_group=group)))
        return sent, result[0].kept, int(result[0].mask.sum())

    (first, kept, here), (second, _, there) = run_ranks(2, measure)
    # Every value stands on both ranks, so ties are likely: 16 KiB for each digit of a float32 and of a position,
    # the counts of rows and of candidates.
    assert first == second
    assert first in {16 + 16 + 3 * 2**14, 16 + 16 + 9 * 2**14}
    assert kept == here + there == KEPT
