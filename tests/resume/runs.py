"""Whole runs in forked processes, one or two ranks, that may be killed: everything is imported once, in the parent.

A run of the built-in policy in 8 steps. Each rollout batch is trained on twice, and every third step is saved, so that
checkpoint-3 lies in the middle of a rollout batch; the prompts are gone through once in 2.5 batches, so that
checkpoint-6 lies in the second epoch.
"""

import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import rlvr.evaluation.heldout
import rlvr.report.page
import rlvr.rewards.preflight
import rlvr.train
import rlvr.trainer.callbacks
import rlvr.trainer.record
import rlvr.trainer.seam  # noqa: F401  all of them imported once, before the fork
from rlvr.checkpoints.choosing import newest_good
from rlvr.checkpoints.layout import committed
from rlvr.checkpoints.manifest import read_manifest, verify
from rlvr.resume_check import OF_THE_MOMENT, TIMES
from rlvr.trainer.facts import code_fingerprint
from tests.checkpoints.killing import interrupt

code_fingerprint()  # of the code that was imported, once: a file that is edited meanwhile is of no run here

STEPS, EVERY = 8, 3
SETTINGS = [
    f"run.steps={STEPS}", f"run.save_steps={EVERY}", "run.keep_last=0", "rollouts.prompts=4",
    "rollouts.num_generations=4",
    "optimizer.updates_per_rollout=2", "optimizer.micro_batch_rows=2", "rollouts.max_completion_length=24",
    "data.train_size=10", "data.heldout_size=4", "evaluation.problems=2", "evaluation.every=2", "run.name=x",
    "logging.progress=none", "rollouts.record.every=0", "launch.timeout_seconds=120",
]  # fmt: skip
ENGINES = {
    "single": [],
    "ddp": ["launch.processes=2"],
    "zero2": ["launch.processes=2", "deepspeed=zero2"],
    "zero3": ["launch.processes=2", "deepspeed=zero3"],
}

LIMIT_SECONDS = 150.0
Hook = Callable[[int], None]
"""Called in each rank, before its run, with its number."""


def ranks_of(engine: str) -> int:
    return 1 if engine == "single" else 2


def start(engine: str, folder: Path, *more: str, hook: Hook | None = None) -> list[int]:
    """Start a run's ranks; gives their process ids. What they print goes to files in `folder`."""
    overrides = [*SETTINGS, *ENGINES[engine], f"run.dir={folder}", *more]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder.mkdir(exist_ok=True)
    return [_fork(rank, ranks_of(engine), port, folder, overrides, hook) for rank in range(ranks_of(engine))]


def _fork(rank: int, ranks: int, port: int, folder: Path, overrides: Sequence[str], hook: Hook | None) -> int:
    child = os.fork()
    if child:
        return child
    code = 99
    try:
        said = os.open(folder / f"rank_{rank}.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(said, 1)
        os.dup2(said, 2)
        sys.stdout = sys.stderr = open(said, "w", buffering=1)  # noqa: SIM115  as long as the process lives
        os.setpgid(0, 0)  # with its graders, to be ended with them
        code = _run(rank, ranks, port, overrides, hook)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        os._exit(code)


def _run(rank: int, ranks: int, port: int, overrides: Sequence[str], hook: Hook | None) -> int:
    import torch
    from accelerate.state import AcceleratorState, GradientState, PartialState

    from rlvr.cli import main

    for state in (AcceleratorState, GradientState, PartialState):  # of trainings in the parent
        state._shared_state.clear()
    torch.set_num_threads(1)
    if ranks > 1:
        os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(ranks), "DS_ACCELERATOR": "cpu"}
        os.environ |= {"LOCAL_WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    if hook is not None:
        hook(rank)
    return main(["train", *overrides])


def finish(pids: Sequence[int], seconds: float = LIMIT_SECONDS) -> list[int]:
    """Wait for all ranks; gives exit codes, -9 for one that was killed. Where one dies, the others are ended too."""
    codes: dict[int, int] = {}
    deadline = time.monotonic() + seconds
    while len(codes) < len(pids):
        for pid in set(pids) - codes.keys():
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                codes[pid] = os.waitstatus_to_exitcode(status)
                kill([pid])  # its graders
                if codes[pid] != 0:
                    deadline = min(deadline, time.monotonic() + 5)  # as a launcher would
        if time.monotonic() > deadline:
            kill(set(pids) - codes.keys())
        time.sleep(0.01)
    return [codes[pid] for pid in pids]


def kill(pids: Iterable[int]) -> None:
    """End processes, with their graders; one that has ended already stays a child until it is waited for."""
    for pid in pids:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)


def log(folder: Path) -> str:
    """What the ranks said last."""
    return "\n".join(path.read_text(errors="replace")[-3000:] for path in sorted(folder.glob("rank_*.log")))


def run(engine: str, folder: Path, *more: str, hook: Hook | None = None) -> list[int]:
    """Start and wait."""
    return finish(start(engine, folder, *more, hook=hook))


@dataclass
class Outcome:
    """What a run came to: everything that a resumed one must have alike.

    Attributes:
        rows: of `metrics.jsonl`, without times.
        files: SHA-256 of the last checkpoint's files, without those that hold times.
        summary: without times.
    """

    rows: list[dict[str, Any]]
    files: dict[str, str]
    summary: dict[str, Any]

    @classmethod
    def of(cls, folder: Path) -> "Outcome":
        rows = [json.loads(line) for line in (folder / "x/metrics.jsonl").read_text().splitlines()]
        rows = [{name: value for name, value in row.items() if not name.startswith(TIMES)} for row in rows]
        last = folder / f"x/checkpoints/checkpoint-{STEPS}"
        assert verify(last) == []
        files = {name: record.sha256 for name, record in read_manifest(last).files.items()}
        summary = json.loads((folder / "x/summary.json").read_text())
        summary.pop("train_seconds")
        return cls(rows, {name: digest for name, digest in files.items() if name not in OF_THE_MOMENT}, summary)


def at_step(step: int, phase: str = "_close_step", of_rank: int = 0) -> Hook:
    """SIGKILL to one rank, in step `step`: after its gradients, before its update, or where `phase` is called."""

    def hook(rank: int) -> None:
        from rlvr.trainer.seam import RLVRTrainer

        method = getattr(RLVRTrainer, phase)

        def killed(trainer: Any, *args: Any, **kwargs: Any) -> Any:
            if rank == of_rank and trainer.state.global_step + 1 >= step:
                os.kill(os.getpid(), signal.SIGKILL)
            return method(trainer, *args, **kwargs)

        setattr(RLVRTrainer, phase, killed)

    return hook


def at_operation(number: int, folder: Path, of_rank: int = 0) -> Hook:
    """SIGKILL to one rank before its operation with this number on files below the folder of checkpoints."""

    def hook(rank: int) -> None:
        if rank == of_rank:
            interrupt(number, "kill", f"{folder / 'x/checkpoints'}", folder / "said")

    return hook


class _Count(int):
    """A number that no operation has: each is compared with it, and leaves a byte."""

    file: int

    def __eq__(self, other: object) -> bool:
        os.write(self.file, b".")
        return False

    __hash__ = int.__hash__


def operations(engine: str, folder: Path) -> list[int]:
    """How many operations on files each rank makes below the folder of checkpoints in a whole run."""
    folder.mkdir()
    counted = [folder / f"counted_{rank}" for rank in range(ranks_of(engine))]

    def hook(rank: int) -> None:
        never = _Count(-1)
        never.file = os.open(counted[rank], os.O_WRONLY | os.O_CREAT)
        at_operation(never, folder, rank)(rank)

    assert run(engine, folder, hook=hook) == [0] * ranks_of(engine), log(folder)
    return [path.stat().st_size for path in counted]


def after_seconds(engine: str, folder: Path, seconds: float) -> list[int]:
    """Go on, and kill all ranks at once after a while; gives their exit codes."""
    pids = start(engine, folder, "run.resume=auto")
    time.sleep(seconds)
    kill(pids)
    return finish(pids)


def check_whole(folder: Path) -> int:
    """No half checkpoint has the name of a whole one; gives the step of the newest, 0 for none."""
    checkpoints = folder / "x/checkpoints"
    assert {path.name: verify(path) for path in committed(checkpoints).values() if verify(path)} == {}
    newest, rejected = newest_good(checkpoints)
    assert rejected == []
    return 0 if newest is None else int(newest.name.rsplit("-", 1)[1])


def some(items: Sequence[int], count: int) -> list[int]:
    """All of them in a soak, else so many, spread evenly."""
    if os.environ.get("RLVR_SOAK") == "1" or len(items) <= count:
        return list(items)
    if count == 1:
        return [items[len(items) // 2]]
    return [items[round(index * (len(items) - 1) / (count - 1))] for index in range(count)]
