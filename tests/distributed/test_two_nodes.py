"""`rlvr train` on two nodes: what two processes on one would do, bit for bit; and a node that is lost ends the job."""

import hashlib
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.distributed.nodes import Node, start, two_nodes, wait_until, why_not
from tests.trainer.tiny_run import TIMES

TIMEOUT_SECONDS = 15

# With RLVR_SOAK=1 every engine.
ENGINES = ["none", "zero1", "zero2", "zero3"] if os.environ.get("RLVR_SOAK") == "1" else ["none", "zero3"]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture
def nodes() -> Iterator[list[Node]]:
    reason = why_not()
    if reason:
        pytest.skip(reason)
    with two_nodes() as both:
        yield both


def finished(processes: list[subprocess.Popen]) -> None:
    """Wait for runs that are to end well."""
    try:
        for process in processes:
            out, error = process.communicate(timeout=200)
            assert process.returncode == 0, out + error
    finally:
        for process in processes:
            process.kill()  # what it has started ends with it


def outcome(folder: Path) -> tuple[str, list[dict[str, Any]]]:
    """The hash of the final weights, and the metrics without times."""
    checkpoint = folder / "checkpoints" / "checkpoint-3"
    assert len(list(checkpoint.glob("rlvr_state_*.pt"))) == 2, "one of each rank"
    weights = checkpoint / "model.safetensors"
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    timeless = [
        {name: value for name, value in row.items() if not name.startswith(TIMES) and "seconds" not in name}
        for row in rows
    ]
    return hashlib.sha256(weights.read_bytes()).hexdigest(), timeless


@pytest.mark.parametrize("engine", ENGINES)
def test_two_nodes_are_two_processes_bit_for_bit(engine: str, nodes: list[Node], tmp_path: Path) -> None:
    settings = ["run.steps=3", f"deepspeed={engine}", "launch.timeout_seconds=120"]
    places = [tmp_path / name for name in ("nodes", "processes")]
    for place in places:
        place.mkdir()
    finished([node.start(places[0], settings) for node in nodes])
    finished([start(places[1], [*settings, "launch.processes=2"])])
    on_nodes, on_one = (outcome(place / "runs" / "x") for place in places)
    assert on_nodes == on_one
    assert [row["step"] for row in on_one[1]] == [1, 2, 3]
    assert on_one[1][-1]["loss"] != 0


def training(nodes: list[Node], place: Path) -> list[subprocess.Popen]:
    """A long run on two nodes that has made two steps."""
    processes = [node.start(place, ["run.steps=4000", f"launch.timeout_seconds={TIMEOUT_SECONDS}"]) for node in nodes]
    metrics = place / "runs" / "x" / "metrics.jsonl"

    def steps() -> int:
        ended = [process for process in processes if process.poll() is not None]
        assert not ended, ended[0].communicate()
        return len(metrics.read_text().splitlines()) if metrics.exists() else 0

    wait_until(lambda: steps() >= 2, 150)
    return processes


def seconds_to_the_end(processes: list[subprocess.Popen], most: float) -> tuple[float, str]:
    """How long all took to end, none of them well; and what they said."""
    spent = wait_until(lambda: all(process.poll() is not None for process in processes), most)
    said = ""
    for process in processes:
        out, error = process.communicate()
        assert process.returncode not in (0, 75), out + error
        said += error
    return spent, said


def test_a_cut_link_ends_the_job_on_both_nodes(nodes: list[Node], tmp_path: Path) -> None:
    processes = training(nodes, tmp_path)
    nodes[1].cut()
    spent, said = seconds_to_the_end(processes, 60)
    assert TIMEOUT_SECONDS - 2 < spent < TIMEOUT_SECONDS + 10
    assert "can no longer reach the others" in said
    assert "go on with run.resume=auto" in said


def test_a_killed_rank_ends_the_job_on_both_nodes(nodes: list[Node], tmp_path: Path) -> None:
    processes = training(nodes, tmp_path)
    (status,) = (tmp_path / "runs").glob(".launch-x-*-1/0/1.pid")
    os.kill(json.loads(status.read_text())["pid"], signal.SIGKILL)
    assert seconds_to_the_end(processes, 60)[0] < 10
