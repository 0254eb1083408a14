"""Where a process stands, written down before the others lose patience with it."""

import faulthandler
import os
import time
from pathlib import Path
from typing import IO, Any

from transformers import TrainerCallback

SHARE = 0.8
"""Of the time-out of a collective operation after which a process says where it stands."""


class Watchdog(TrainerCallback):
    """Has the stacks of this process written to a file where it neither enters nor leaves a phase for too long.

    A collective operation begins after the phase around it, so with a limit below its time-out each process has
    written before the first one gives up. The time runs anew at each border of a phase, nested ones included, and from
    the end of a phase to the next, until training ends. The writer is a thread of C that needs no lock of Python.

    Args:
        path: of the file, `stacks/rank_0.txt`; made when the first phase begins, and deleted at the end if empty.
        seconds: from one border to the next.
    """

    def __init__(self, path: Path, seconds: float) -> None:
        self.path, self.seconds = path, seconds
        self._file: IO[str] | None = None
        self._since = 0.0

    def border(self, name: str) -> None:
        """The phase of this name begins or ends."""
        now = time.monotonic()
        if self._file is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("a")
        elif now - self._since > self.seconds:
            print(f"after {now - self._since:.1f} s it moved on, at a border of {name}", file=self._file, flush=True)
        self._since = now
        faulthandler.dump_traceback_later(self.seconds, file=self._file)

    def on_train_end(self, *_: Any, **__: Any) -> None:
        self.close()

    def close(self) -> None:
        """Nothing is awaited any more."""
        if self._file is None:
            return
        faulthandler.cancel_dump_traceback_later()
        self._file.close()
        self._file = None
        if not os.path.getsize(self.path):
            self.path.unlink()


def watch(trainer: Any, folder: Path, timeout_seconds: float) -> None:
    """Give each rank of a trainer a watchdog.

    Args:
        trainer: whose phases it hears of.
        folder: for the files.
        timeout_seconds: of a collective operation.
    """
    watchdog = Watchdog(folder / f"rank_{trainer.ranks.index}.txt", SHARE * timeout_seconds)
    trainer.at_border = watchdog.border
    trainer.add_callback(watchdog)
