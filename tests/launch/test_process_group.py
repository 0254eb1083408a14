"""The process group: only for ranks, with a time-out that is kept."""

import multiprocessing
import os
import time
from typing import Any

import pytest

from rlvr.errors import UserError
from rlvr.launch.process_group import back_end_of, lost_others, start, stop, wait
from rlvr.launch.section import LaunchSection
from tests.ranks import run_ranks


def test_a_single_process_has_no_group(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    assert start(LaunchSection(), {}, on_gpu=False) is False
    wait()
    stop()


def test_the_back_end_is_that_of_the_device() -> None:
    assert (back_end_of(True), back_end_of(False)) == ("nccl", "gloo")


def _alone(port: int, deepspeed: dict[str, Any], pipe: Any) -> None:
    os.environ |= {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    try:
        start(LaunchSection(timeout_seconds=3), deepspeed, on_gpu=False)
        pipe.send("")
    except UserError as error:
        pipe.send(str(error))


def test_a_rank_whose_peers_never_come_says_so_in_time(free_port: int) -> None:
    context = multiprocessing.get_context("fork")
    reader, writer = context.Pipe(duplex=False)
    began = time.monotonic()
    process = context.Process(target=_alone, args=(free_port, {}, writer))
    process.start()
    assert reader.poll(60), "a rank waits for ever"
    said = reader.recv()
    process.join()
    assert f"the 2 processes did not meet at 127.0.0.1:{free_port} within launch.timeout_seconds=3" in said
    assert time.monotonic() - began < 30


def test_a_stalled_rank_ends_the_others_after_the_time_out() -> None:
    def on_rank(rank: int) -> str:
        import torch
        import torch.distributed as dist

        dist.destroy_process_group()
        assert start(LaunchSection(timeout_seconds=2), {}, on_gpu=False)
        dist.barrier()
        began = time.monotonic()
        if rank == 1:
            time.sleep(5)
            return "stalled"
        try:
            dist.all_reduce(torch.ones(1))
        except RuntimeError as error:
            seconds = time.monotonic() - began
            said = lost_others(error, 0) or ""
            return f"{1 < seconds < 4.5} {said[:39]}"
        return "nothing happened"

    assert run_ranks(2, on_rank, timeout=60) == ["True rank 0 can no longer reach the others (", "stalled"]


def test_the_group_in_which_zero_reduces_has_the_time_out_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    import deepspeed  # noqa: F401  before the fork, for it takes longer than the time-out

    def on_rank(rank: int) -> str:
        import torch
        import torch.distributed as dist
        from deepspeed.utils.groups import _clone_world_group

        dist.destroy_process_group()
        assert start(LaunchSection(timeout_seconds=4), {"zero_optimization": {"stage": 2}}, on_gpu=False)
        group = _clone_world_group()
        dist.all_reduce(torch.ones(1), group=group)
        if rank == 1:
            time.sleep(9)
            return "stalled"
        began = time.monotonic()
        try:
            dist.all_reduce(torch.ones(1), group=group)
        except RuntimeError as error:
            return f"{3 < time.monotonic() - began < 8.5} {lost_others(error, 0) is not None}"
        return "nothing happened"

    assert run_ranks(2, on_rank, timeout=120) == ["True True", "stalled"]


def test_errors_of_another_kind_are_no_lost_rank() -> None:
    import torch.distributed as dist

    errors = [ValueError("timed out"), RuntimeError("connection closed"), RuntimeError("out of memory")]
    assert [lost_others(error, 1) for error in errors] == [None] * 3, "not raised by torch.distributed"
    assert lost_others(dist.DistStoreError("shapes differ"), 1) is None
    said = lost_others(dist.DistStoreError("Timed out after 3 seconds\nwaiting for clients"), 1)
    assert said is not None
    assert said.startswith("rank 1 can no longer reach the others (Timed out after 3 seconds waiting for clients); ")
    assert "\n" not in said


@pytest.fixture
def free_port() -> int:
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port
