"""Interrupt an action before each of its operations on files: `python -m tests.checkpoints.killing ACTION HOW FOLDER`.

Prints one JSON object per interruption. Forks after its few imports, so that a hundred interruptions take a second.
"""

import errno
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rlvr.checkpoints.choosing import newest_good
from rlvr.checkpoints.layout import committed, remove
from rlvr.checkpoints.manifest import read_manifest, verify
from rlvr.checkpoints.retention import prune
from rlvr.checkpoints.staging import staged, sweep
from rlvr.errors import UserError
from tests.checkpoints.folders import flip, save, write_files

OPERATIONS = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate"}
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
FINISHED, REFUSED = 0, 3
"""Exit codes of a child that was not killed; 3 for a `UserError`."""


def one_before(folder: Path) -> None:
    save(folder, 4, "old")


def same_step(folder: Path) -> None:
    save(folder, 6, "old")


def damaged_same_step(folder: Path) -> None:
    save(folder, 4, "old")
    flip(save(folder, 6, "damaged") / "optimizer.pt", 100)


def two_before(folder: Path) -> None:
    save(folder, 2, "older")
    save(folder, 4, "old")


def interrupted(folder: Path) -> None:
    """A kill between the two renames of a replacement, a half save and a half deletion."""
    save(folder, 6, "old").rename(folder / ".replaced-checkpoint-6")
    write_files(folder / ".staging" / "checkpoint-6", "half")
    save(folder, 2, "older").rename(folder / ".trash-checkpoint-2")


def save_six(folder: Path) -> None:
    save(folder, 6)


def save_and_prune(folder: Path) -> None:
    prune(folder, save(folder, 6), keep_last=1)


def replace_unsafely(folder: Path) -> None:
    """A control that must fail: the old one goes before the new one is there."""
    with staged(folder, 6) as staging:
        remove(folder / "checkpoint-6")
        write_files(staging)
        staging.rename(folder / "checkpoint-6")


ACTIONS: dict[str, tuple[Callable[[Path], None], Callable[[Path], Any]]] = {
    "new": (one_before, save_six),
    "replace": (same_step, save_six),
    "replace_damaged": (damaged_same_step, save_six),
    "prune": (two_before, save_and_prune),
    "sweep": (interrupted, sweep),
    "unsafe": (same_step, replace_unsafely),
}


def interrupt(at: int, how: str, below: str, said: Path) -> None:
    """Count operations below a folder in this process and stop before the one with the number `at`."""
    count = 0

    def before(event: str, path: object) -> None:
        nonlocal count
        if isinstance(path, int) or not below_folder(path):
            return
        if count == at:
            count += 1
            os.write(said_file, f"{event} {os.fsdecode(path)[len(below) :]}".encode())  # type: ignore[arg-type]
            if how == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        count += 1

    def below_folder(path: object) -> bool:  # rmtree names what it deletes relative to a descriptor
        return isinstance(path, str | bytes | os.PathLike) and (
            os.fsdecode(path).startswith(below) or not os.path.isabs(os.fsdecode(path))
        )

    def audit(event: str, arguments: tuple[Any, ...]) -> None:
        if event in OPERATIONS or (event == "open" and isinstance(arguments[2], int) and arguments[2] & WRITES):
            before(event, arguments[0])

    def fsync(descriptor: int) -> None:
        before("fsync", os.readlink(f"/proc/self/fd/{descriptor}"))  # and no more: a killed process loses no page

    said_file = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.fsync = fsync  # the one operation that Python does not audit
    sys.addaudithook(audit)


def run_child(action: Callable[[Path], Any], folder: Path, at: int, how: str, said: Path) -> int:
    """The status of a forked process that does the action and is interrupted."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            interrupt(at, how, f"{folder}", said)
            action(folder)
            code = FINISHED
        except UserError:
            code = REFUSED
        finally:
            os._exit(code)
    return os.waitpid(child, 0)[1]


def look(folder: Path) -> dict[str, Any]:
    """What a restart would see."""
    chosen, rejected = newest_good(folder)
    which = None if chosen is None else read_manifest(chosen).facts["which"]
    return {
        "which": which,
        "rejected": [one.path.name for one in rejected],
        "broken": [path.name for path in committed(folder).values() if verify(path)],
        "names": sorted(os.listdir(folder)),
    }


def main(name: str, how: str, place: str) -> None:
    prepare, action = ACTIONS[name]
    template, folder, said = Path(place, "template"), Path(place, "checkpoints"), Path(place, "said")
    prepare(template)
    for at in range(10_000):
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(template, folder)
        status = run_child(action, folder, at, how, said)
        row = {"at": at, "operation": said.read_text(), "killed": os.WIFSIGNALED(status), "before_sweep": look(folder)}
        row["code"] = None if row["killed"] else os.WEXITSTATUS(status)
        sweep(folder)
        row["after_sweep"] = look(folder)
        print(json.dumps(row), flush=True)
        if not row["operation"]:
            return
    raise SystemExit("the action never came to its end")


if __name__ == "__main__":
    main(*sys.argv[1:])
