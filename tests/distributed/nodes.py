"""Two nodes on one machine: network namespaces that share the disk, joined by a pair of virtual interfaces."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.source import ROOT

INTERFACE, PORT = "rlvr0", 29517
ADDRESSES = ("10.77.0.1", "10.77.0.2")
SETTINGS = ["rollouts.prompts=4", "evaluation.problems=4", "run.name=x"]


@dataclass(frozen=True)
class Node:
    """One of the two.

    Attributes:
        rank: 0 or 1.
        name: of its namespace.
    """

    rank: int
    name: str

    def start(self, place: Path, settings: Sequence[str]) -> subprocess.Popen:
        """`rlvr train` with one process here."""
        launch = {
            "nodes": 2, "processes": 1, "node_rank": self.rank, "main_address": ADDRESSES[0], "main_port": PORT,
            "interface": INTERFACE,
        }  # fmt: skip
        words = [*settings, *(f"launch.{name}={value}" for name, value in launch.items())]
        return start(place, words, ["ip", "netns", "exec", self.name])

    def cut(self) -> None:
        """Take its interface down."""
        ip("-n", self.name, "link", "set", INTERFACE, "down")

    def end(self) -> None:
        """Kill what still runs here, and take the namespace away, with its interface."""
        for pid in ip("netns", "pids", self.name).split():
            with suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        ip("netns", "del", self.name)


def ip(*words: str) -> str:
    """Call `ip`; its output."""
    return subprocess.run(["ip", *words], check=True, capture_output=True, text=True).stdout


def why_not() -> str:
    """Why this machine can have no nodes of its own; empty where it can."""
    if shutil.which("ip") is None:
        return "there is no command ip"
    if os.geteuid() != 0:
        return "network namespaces need root"
    name = f"rlvr-try-{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True)
    if made.returncode:
        return f"network namespaces cannot be made: {made.stderr.strip()}"
    ip("netns", "del", name)
    return ""


@contextmanager
def two_nodes() -> Iterator[list[Node]]:
    """Two nodes that can reach each other, and nobody else; gone afterwards."""
    nodes = [Node(rank, f"rlvr-{os.getpid()}-{rank}") for rank in (0, 1)]
    made: list[Node] = []
    try:
        for node in nodes:
            ip("netns", "add", node.name)
            made.append(node)
        first, second = nodes
        pair = ("link", "add", INTERFACE, "type", "veth", "peer", "name", INTERFACE, "netns", second.name)
        ip("-n", first.name, *pair)
        for node, address in zip(nodes, ADDRESSES, strict=True):
            ip("-n", node.name, "address", "add", f"{address}/24", "dev", INTERFACE)
            for interface in ("lo", INTERFACE):
                ip("-n", node.name, "link", "set", interface, "up")
        yield nodes
    finally:
        for node in made:
            node.end()


def start(place: Path, settings: Sequence[str], launcher: Sequence[str] = ()) -> subprocess.Popen:
    """`rlvr train` as people call it, with one thread a process."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "DS_ACCELERATOR": "cpu"}
    command = [sys.executable, "-m", "rlvr.cli", "train", f"run.dir={place / 'runs'}", *SETTINGS, *settings]
    return subprocess.Popen(
        [*launcher, *command], cwd=place, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def wait_until(happened: Callable[[], bool], seconds: float) -> float:
    """Seconds until something happened.

    Raises:
        TimeoutError: if it does not.
    """
    begun = time.monotonic()
    while not happened():
        if time.monotonic() - begun > seconds:
            raise TimeoutError(f"it did not happen within {seconds:g} s")
        time.sleep(0.05)
    return time.monotonic() - begun
