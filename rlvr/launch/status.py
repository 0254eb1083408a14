"""What ranks leave for their launcher: their process ids, how they ended, and what they said.

torchrun makes 1 of every exit code, so each rank writes its own into a folder. Nothing here imports torch.
"""

import contextlib
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rlvr.errors import UserError
from rlvr.launch.variables import whole

STATUS_DIR = "RLVR_STATUS_DIR"
"""Folder for the files of this module, set by the launcher."""

PARENT = "RLVR_LAUNCHER"
"""Set where the process that started this one is to be outlived by nobody."""

DONE, CRASHED, REFUSED, PREEMPTED, INTERRUPTED = 0, 1, 2, 75, 130
"""Exit codes of `rlvr train`; 75 is EX_TEMPFAIL of sysexits.h: start again with a resume."""


EXIT_SECONDS = 30.0
"""How long a rank may take to end once its work is done."""


class Disagreement(UserError):
    """An error that every rank has found alike, so that one has to say it."""


@dataclass(frozen=True)
class End:
    """How a rank ended.

    Attributes:
        code: its exit code.
        message: what a `UserError` said; empty for none.
    """

    code: int
    message: str = ""


def own_rank() -> int:
    """This process among those of its job."""
    return whole(os.environ, "RANK")


def _write(path: Path, values: dict[str, object]) -> None:
    """A file of a status folder, whole or not at all."""
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(values))
    partial.replace(path)


def _read(folder: Path, kind: str) -> dict[int, dict[str, object]]:
    return {int(path.stem): json.loads(path.read_text()) for path in sorted(folder.glob(f"*.{kind}"))}


def write_end(folder: Path, rank: int, end: End) -> None:
    """How a rank ended."""
    _write(folder / f"{rank}.end", {"code": end.code, "message": end.message})


def leave_end(folder: Path, rank: int, end: End) -> None:
    """How a rank ended, and where the disk refuses to take it what it had to say, on its own terminal."""
    try:
        write_end(folder, rank, end)
    except OSError:
        if end.message:
            with contextlib.suppress(OSError):
                os.write(_terminal, f"rlvr: {end.message}\n".encode())


def ends(folder: Path) -> dict[int, End]:
    """How the ranks ended that did say so."""
    return {rank: End(**values) for rank, values in _read(folder, "end").items()}  # type: ignore[arg-type]


def started(folder: Path) -> set[int]:
    """Ranks that have said that they are there."""
    return {int(path.stem) for path in folder.glob("*.pid")}


def pids(folder: Path) -> set[int]:
    """Process ids of the ranks on this machine that have not said their end."""
    over, here = ends(folder), socket.gethostname()
    found = _read(folder, "pid")
    return {int(str(at["pid"])) for rank, at in found.items() if at["host"] == here and rank not in over}


def log_file(folder: Path, rank: int) -> Path:
    """What a rank other than the main one prints goes here."""
    return folder / f"rank_{rank:04d}.log"


_terminal = 2
"""Where this process says what no file can take: its first stderr."""


def _redirect(path: Path) -> None:
    """Both streams of this process into its log, those of libraries and of C as well."""
    global _terminal
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    _terminal = os.dup(2)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    os.close(descriptor)


def _end_with(parent: int) -> None:
    """Ask this process to end when its parent has ended without a word: nobody would see what it does."""
    import signal

    while os.getppid() == parent:
        time.sleep(1.0)
    os.kill(os.getpid(), signal.SIGTERM)


def follow_parent() -> None:
    """End with the process that started this one, if a launcher asked for that."""
    if PARENT in os.environ:
        threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()


def end_soon(code: int, seconds: float = EXIT_SECONDS) -> None:
    """End this process by force if it has not ended by itself in time: a library's thread may hold it."""
    timer = threading.Timer(seconds, os._exit, (code,))
    timer.daemon = True
    timer.start()


def flush() -> None:
    """What was printed goes out. What a full disk does not take is let go: Python would end with another exit code."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _begin(folder: Path, rank: int) -> None:
    """The first files of a rank.

    Raises:
        UserError: if they cannot be written.
    """
    try:
        if rank > 0:
            _redirect(log_file(folder, rank))
        _write(folder / f"{rank}.pid", {"pid": os.getpid(), "host": socket.gethostname()})
    except OSError as error:
        raise UserError(
            f"rank {rank} cannot write to {folder} ({error.strerror}); make room, or set run.dir to a folder that all "
            "nodes can write to"
        ) from None
    follow_parent()


@contextmanager
def reporting() -> Iterator[None]:
    """Around everything that a rank does: its end is written down, whatever it is.

    A `UserError` becomes exit code 2: the launcher says it, once for all ranks.
    """
    folder, rank = Path(os.environ[STATUS_DIR]) if STATUS_DIR in os.environ else None, own_rank()
    end = End(CRASHED)
    try:
        if folder is not None:
            _begin(folder, rank)
        yield
        end = End(DONE)
    except UserError as error:
        end = End(REFUSED, str(error))
        if folder is not None or (isinstance(error, Disagreement) and rank > 0):
            raise SystemExit(REFUSED) from None
        raise
    except KeyboardInterrupt:
        end = End(INTERRUPTED)
        raise
    except SystemExit as error:
        end = End(error.code if isinstance(error.code, int) else CRASHED)
        raise
    finally:
        if folder is not None:
            leave_end(folder, rank, end)
