"""What the lead does for all: others wait for as long as it gets on, and no longer."""

import time
from typing import Any

import pytest

from rlvr.checkpoints.progress import PROGRESS
from rlvr.errors import UserError
from rlvr.launch.process_group import lost_others, start
from rlvr.launch.section import LaunchSection
from rlvr.trainer.together import from_lead
from tests.ranks import run_ranks

TIMEOUT_SECONDS = 3


def _again(rank: int) -> None:
    import torch.distributed as dist

    dist.destroy_process_group()
    assert start(LaunchSection(timeout_seconds=TIMEOUT_SECONDS), {}, on_gpu=False)


def _slow(files: bool) -> str:
    """Two time-outs long; with files that are finished meanwhile, or none."""
    for _ in range(12):
        time.sleep(TIMEOUT_SECONDS / 6)
        if files:
            PROGRESS.one_more()
    return "written"


def test_files_that_are_finished_keep_the_others_waiting() -> None:
    def on_rank(rank: int) -> Any:
        _again(rank)
        return from_lead(lambda: _slow(files=True))

    assert run_ranks(2, on_rank, timeout=60) == ["written", "written"]


def test_a_lead_that_finishes_nothing_is_given_up() -> None:
    def on_rank(rank: int) -> Any:
        _again(rank)
        began = time.monotonic()
        try:
            return from_lead(lambda: _slow(files=False))
        except RuntimeError as error:
            return lost_others(error, rank) is not None, time.monotonic() - began < 1.7 * TIMEOUT_SECONDS

    assert run_ranks(2, on_rank, timeout=60)[1] == (True, True)


def test_errors_of_the_lead_are_those_of_all() -> None:
    def on_rank(rank: int) -> Any:
        _again(rank)

        def action() -> None:
            PROGRESS.one_more()
            time.sleep(1.5)
            raise UserError("the disk is full")

        with pytest.raises(UserError, match="the disk is full"):
            from_lead(action)
        return from_lead(lambda: rank)

    assert run_ranks(2, on_rank, timeout=60) == [0, 0]


def test_a_single_process_waits_for_nobody() -> None:
    assert from_lead(lambda: 7) == 7
