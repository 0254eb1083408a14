"""The same tokens are kept however rows are split over ranks, and the messages do not grow with them."""

import itertools
import math

import pytest
import torch
import torch.distributed as dist
from hypothesis import given, settings
from hypothesis import strategies as st

from rlvr.selection.select import RULES, TokenSelection, select_tokens
from tests.ranks import run_ranks
from tests.selection.oracle import Case, make_case

POOLED = ("rollout", "micro_batch_all_ranks", "group", "sequence")


def parts_of(case: Case, cuts: list[float]) -> list[Case]:
    """The case split into len(cuts) + 1 parts of whole groups; a part may be empty."""
    groups = len(case.rows) // case.group_size
    edges = [0, *(round(cut * groups) * case.group_size for cut in sorted(cuts)), len(case.rows)]
    return [case.take(slice(start, stop)) for start, stop in itertools.pairwise(edges)]


def of(case: Case, **more: object) -> TokenSelection:
    return select_tokens(case.entropies, case.mask, **case.keywords() | more)


@settings(max_examples=12)
@given(
    st.integers(1, 4).flatmap(
        lambda ranks: st.lists(
            st.tuples(st.integers(0, 2**40), st.lists(st.floats(0, 1), min_size=ranks - 1, max_size=ranks - 1)),
            min_size=10,
            max_size=20,
        )
    )
)
def test_any_split_over_one_to_four_ranks_equals_the_unsplit_result(drawn: list[tuple[int, list[float]]]) -> None:
    cases = [make_case(seed, POOLED) for seed, _ in drawn]
    splits = [parts_of(case, cuts) for case, (_, cuts) in zip(cases, drawn, strict=True)]
    ranks = len(drawn[0][1]) + 1
    results = run_ranks(ranks, lambda rank: [of(split[rank], process_group=dist.group.WORLD) for split in splits])
    for index, case in enumerate(cases):
        whole, pieces = of(case), [result[index] for result in results]
        assert torch.equal(torch.cat([piece.mask for piece in pieces]), whole.mask)
        assert {(piece.kept, piece.candidates) for piece in pieces} == {(whole.kept, whole.candidates)}
        if case.scope in ("group", "sequence"):
            pieces = [torch.cat([piece.threshold for piece in pieces])]
        else:
            pieces = [piece.threshold for piece in pieces]
        for threshold in pieces:
            torch.testing.assert_close(threshold, whole.threshold, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("scope", ["rollout", "micro_batch_all_ranks"])
def test_two_ranks_hold_one_threshold_for_both(scope: str) -> None:
    low, high = torch.tensor([[0.1, 0.2, 0.3, 0.4, 0.5]]), torch.tensor([[1.1, 1.2, 1.3, 1.4, 1.5]])

    def pick(rank: int) -> tuple[list[int], float]:
        result = select_tokens([low, high][rank], torch.ones(1, 5), scope=scope, process_group=dist.group.WORLD)
        return result.mask[0].nonzero().flatten().tolist(), round(result.threshold.item(), 4)

    assert run_ranks(2, pick) == [([], 1.4), ([3, 4], 1.4)]


def test_a_micro_batch_decides_alone_even_when_a_group_is_given() -> None:
    def pick(rank: int) -> tuple[int, int]:
        result = select_tokens(
            torch.rand(1, 5 * (rank + 1)), torch.ones(1, 5 * (rank + 1)), scope="micro_batch",
            process_group=dist.group.WORLD,
        )  # fmt: skip
        return result.kept, result.candidates

    assert run_ranks(2, pick) == [(1, 5), (2, 10)]


def test_without_row_indices_the_rows_of_lower_ranks_come_first() -> None:
    def pick(rank: int) -> list[list[bool]]:
        rows = 1 if rank == 0 else 2
        return select_tokens(torch.ones(rows, 2), torch.ones(rows, 2), keep=0.5, process_group=dist.group.WORLD).mask

    assert torch.cat(run_ranks(2, pick)).tolist() == [[True, True], [True, False], [False, False]]


def test_a_nan_on_one_rank_is_refused_on_all() -> None:
    def pick(rank: int) -> str:
        entropies = torch.tensor([[0.5, 0.1, 0.2, math.nan if rank else 0.3]])
        with pytest.raises(ValueError, match="1 of 8 candidate entropies are NaN") as caught:
            select_tokens(entropies, torch.ones(1, 4), process_group=dist.group.WORLD)
        return str(caught.value)

    assert len(set(run_ranks(2, pick))) == 1


@pytest.mark.parametrize("tied", [False, True])
def test_the_messages_are_few_of_a_fixed_size_and_do_not_grow_with_the_tokens(tied: bool) -> None:
    def sizes_for(tokens: int) -> list[int]:
        sent, plain = [], dist.all_reduce

        def counting(tensor: torch.Tensor, **where: object) -> object:
            sent.append(tensor.numel() * tensor.element_size())
            return plain(tensor, **where)

        dist.all_reduce = counting
        entropies = torch.zeros(1, tokens) if tied else torch.arange(tokens).float().unsqueeze(0)
        rows = torch.tensor([dist.get_rank()])
        select_tokens(entropies + (0 if tied else 0.5 * dist.get_rank()), torch.ones(1, tokens), rows=rows,
                      process_group=dist.group.WORLD)  # fmt: skip
        dist.all_reduce = plain
        return sent

    digits = 3 + (6 if tied else 0)  # of a float32; and of a (row, token) pair where a tie must be cut
    expected = [16] + [16 * 1024] * digits
    assert run_ranks(2, lambda rank: [sizes_for(11), sizes_for(50_000)]) == [[expected, expected]] * 2


def test_every_rule_is_covered_by_the_random_cases() -> None:
    assert {make_case(seed, POOLED).rule for seed in range(50)} == set(RULES)
    assert {make_case(seed, POOLED).scope for seed in range(50)} == set(POOLED)
