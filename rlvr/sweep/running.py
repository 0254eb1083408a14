"""Runs the cells of a sweep on this machine: so many at a time, each `rlvr train --from` in a process of its own.

A cell is over when its run has a summary. What is not over is run again: from its newest checkpoint if there is one.
"""

import ctypes
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rlvr.launch.children import Signals
from rlvr.rewards.cores import usable_cores
from rlvr.sweep.folder import SweepFolder
from rlvr.sweep.plan import Cell, quoted

POLL_SECONDS = 0.1
PATIENCE_SECONDS = 60.0
"""How long to wait for a cell that another process writes: one that a killed sweep has left still saves."""

_PR_SET_PDEATHSIG = 1

Command = Callable[[SweepFolder, Cell], list[str]]
Say = Callable[[str], None]


def train_command(folder: SweepFolder, cell: Cell) -> list[str]:
    """What runs a cell, or goes on with it."""
    run = folder.run(cell.name)
    half = run.path.is_dir() and any(run.path.iterdir())
    how = "run.overwrite=true" if half and not run.complete_checkpoints() else "run.resume=auto"
    config, place = str(folder.config(cell.name)), f"run.dir={quoted(folder.path)}"
    return [sys.executable, "-m", "rlvr.cli", "train", "--from", config, place, how]


@dataclass(frozen=True)
class Failure:
    """A cell that did not come to its end.

    Attributes:
        cell: its name.
        code: exit code; None where another process has the cell.
        log: what it printed.
    """

    cell: str
    code: int | None
    log: Path

    def __str__(self) -> str:
        if self.code is None:
            return f"{self.cell}: another process is running it"
        return f"{self.cell}: exit code {self.code}, see {self.log}"


@dataclass
class Outcome:
    """How the cells went.

    Attributes:
        failures: cells that ended without a summary.
        stopped: the signal that ended the sweep; None for none.
    """

    failures: list[Failure] = field(default_factory=list)
    stopped: int | None = None


@dataclass
class _Started:
    cell: Cell
    process: subprocess.Popen[bytes]
    slot: int
    began: float
    held: ExitStack


class LocalRunner:
    """Runs cells here.

    Args:
        folder: of the sweep.
        workers: cells at a time.
        group: name that trackers put the runs together under.
        say: takes a line for people.
        command: what runs a cell; None for `rlvr train --from`.
    """

    def __init__(
        self, folder: SweepFolder, workers: int, group: str, say: Say = print, command: Command | None = None
    ) -> None:
        self.folder, self.workers, self.group, self.say = folder, workers, group, say
        self.command = command or train_command
        self.running: list[_Started] = []
        self.outcome = Outcome()

    def run(self, cells: Sequence[Cell], listen: bool = True) -> Outcome:
        """Run the cells that are not finished, until all have ended or a signal comes.

        Args:
            cells: of the sweep.
            listen: pass SIGINT and SIGTERM on as SIGTERM, at which a run saves and ends; a second SIGINT kills. False
                leaves signals to whoever has a handler for them.
        """
        self.outcome = Outcome()
        waiting = [cell for cell in cells if self.folder.summary(cell.name) is None]
        deadline = time.monotonic() + PATIENCE_SECONDS
        signals = Signals()
        with signals.caught() if listen else nullcontext():
            while waiting or self.running:
                if signals.came:
                    waiting = []
                    self._stop(signals)
                self._reap()
                waiting = self._start(waiting, time.monotonic() > deadline)
                time.sleep(POLL_SECONDS if waiting or self.running else 0)
        return self.outcome

    def finish_early(self) -> None:
        """Ask what runs to save and to end, and wait for it; for a signal handler that came between."""
        for one in self.running:
            one.process.terminate()
        for one in self.running:
            one.process.wait()

    def _start(self, waiting: list[Cell], late: bool) -> list[Cell]:
        """Fill the free slots; returns the cells that still wait."""
        left = list(waiting)
        for cell in waiting:
            free = sorted(set(range(self.workers)) - {one.slot for one in self.running})
            if not free:
                break
            held = ExitStack()
            file = held.enter_context(self.folder.claimed(cell.name))
            if file is not None and self.folder.summary(cell.name) is None:
                left.remove(cell)
                self._begin(cell, free[0], file.fileno(), held)
                continue
            held.close()
            if file is not None:  # another process has finished it in the meantime
                left.remove(cell)
            elif late:
                left.remove(cell)
                self._fail(Failure(cell.name, None, self.folder.log(cell.name)))
        return left

    def _begin(self, cell: Cell, slot: int, claim: int, held: ExitStack) -> None:
        command = self.command(self.folder, cell)
        log = held.enter_context(self.folder.log(cell.name).open("ab"))
        log.write(f"$ {shlex.join(command)}\n".encode())
        log.flush()
        environment = {**os.environ, **environment_of(self.group, self.workers, slot, os.environ)}
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=environment,
            start_new_session=True, pass_fds=(claim,), preexec_fn=ends_with(os.getpid()),
        )  # fmt: skip
        self.running.append(_Started(cell, process, slot, time.monotonic(), held))

    def _reap(self) -> None:
        for one in list(self.running):
            code = one.process.poll()
            if code is None:
                continue
            self.running.remove(one)
            one.held.close()
            summary = self.folder.summary(one.cell.name)
            seconds = time.monotonic() - one.began
            if summary is not None:
                after = f"; exit code {code} after that, see {self.folder.log(one.cell.name)}" if code else ""
                self.say(f"{one.cell.name}: {accuracies(summary)} in {seconds:.0f} s{after}")
            elif self.outcome.stopped is None:
                self._fail(Failure(one.cell.name, code, self.folder.log(one.cell.name)))

    def _fail(self, failure: Failure) -> None:
        self.outcome.failures.append(failure)
        self.say(f"FAILED {failure}")

    def _stop(self, signals: Signals) -> None:
        if self.outcome.stopped is None:
            self.outcome.stopped = signals.came[0]
            if self.running:
                self.say(f"stopping {len(self.running)} cells, which save first; interrupt once more to kill them")
            for one in self.running:
                one.process.terminate()
        elif signals.came.count(signal.SIGINT) > 1:
            for one in self.running:
                one.process.kill()


def accuracies(summary: dict[str, Any]) -> str:
    """`held-out accuracy 45.1 % -> 95.5 %`."""
    before, after = (summary.get(f"accuracy_{when}") for when in ("before", "after"))
    if before is None or after is None:
        return "finished"
    return f"held-out accuracy {100 * before:.1f} % -> {100 * after:.1f} %"


def ends_with(parent: int) -> Callable[[], None]:
    """What a child does before its command: ask the kernel for a SIGTERM when its parent ends. Linux only."""
    library = ctypes.CDLL(None) if sys.platform == "linux" else None

    def ask() -> None:
        if library is not None:
            library.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it ended in the meantime
            os._exit(1)

    return ask


def environment_of(group: str, workers: int, slot: int, environment: Any) -> dict[str, str]:
    """What a cell's environment has beside the sweep's: its share of the cores and GPUs, and its tracker's group.

    Args:
        group: of Weights & Biases.
        workers: cells at a time.
        slot: of this cell among them, from 0.
        environment: of the sweep; what is set there stays, but for the list of GPUs.
    """
    added = {"WANDB_RUN_GROUP": group, "OMP_NUM_THREADS": str(max(1, usable_cores() // workers))}
    added = {name: value for name, value in added.items() if name not in environment}
    devices = visible_gpus(environment)
    if devices:
        share = max(1, len(devices) // workers)
        first = slot * share % len(devices)
        added["CUDA_VISIBLE_DEVICES"] = ",".join(devices[first : first + share])
    return added


def visible_gpus(environment: Any, found: Path = Path("/proc/driver/nvidia/gpus")) -> list[str]:
    """The GPUs of `CUDA_VISIBLE_DEVICES`, or of this machine, by the names that the variable takes."""
    if "CUDA_VISIBLE_DEVICES" in environment:
        return [name.strip() for name in environment["CUDA_VISIBLE_DEVICES"].split(",") if name.strip()]
    return [str(index) for index in range(len(list(found.iterdir())))] if found.is_dir() else []
