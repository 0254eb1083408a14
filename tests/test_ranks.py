"""The helper that runs ranks reports what happened on each of them."""

import os
import time

import pytest
import torch
import torch.distributed as dist

from tests.ranks import run_ranks


def test_every_rank_takes_part_and_results_come_back_in_order() -> None:
    def total(rank: int, offset: int) -> tuple[int, torch.Tensor]:
        value = torch.tensor(rank + offset)
        dist.all_reduce(value)
        return rank, value

    assert [(rank, int(value)) for rank, value in run_ranks(3, total, 10)] == [(0, 33), (1, 33), (2, 33)]


def test_the_traceback_of_a_failing_rank_is_shown_and_the_others_are_ended() -> None:
    def fails(rank: int) -> None:
        if rank == 1:
            raise ArithmeticError("one and one is three")
        dist.barrier()

    with pytest.raises(RuntimeError, match=r"(?s)rank 1:.*ArithmeticError: one and one is three"):
        run_ranks(2, fails)


def test_a_rank_that_dies_is_reported_with_its_exit_code() -> None:
    with pytest.raises(RuntimeError, match="rank 0:\ndied with exit code 7"):
        run_ranks(1, lambda rank: os._exit(7))


def test_a_rank_that_hangs_is_reported_with_the_line_it_stands_at() -> None:
    def hangs(rank: int) -> None:
        time.sleep(60)

    start = time.monotonic()
    with pytest.raises(RuntimeError, match=r"(?s)rank 0 did not finish \(limit 2 s\).*in hangs"):
        run_ranks(1, hangs, timeout=2)
    assert time.monotonic() - start < 20


def test_the_thread_count_of_the_caller_is_restored() -> None:
    before = torch.get_num_threads()
    assert run_ranks(1, lambda rank: torch.get_num_threads()) == [1]
    assert torch.get_num_threads() == before
