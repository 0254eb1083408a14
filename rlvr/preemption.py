"""Signals that ask a run to end soon: SIGTERM, and the SIGUSR1 that Slurm can send ahead of a time limit.

They are only noted here. Ranks agree at the end of an optimizer step, see `rlvr/trainer/preemption.py`. A single
process that has not begun to train has nothing to save and nobody to agree with: it ends at once.

Nothing here imports torch.
"""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from rlvr.launch.status import DONE, PREEMPTED, STATUS_DIR, ends, pids
from rlvr.launch.world import is_rank

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


class Preempted(SystemExit):
    """The run was asked to end and did so in order; exit code 75: start again with a resume.

    Args:
        message: for people; what there is to go on from.
    """

    def __init__(self, message: str) -> None:
        super().__init__(PREEMPTED)
        self.message = message


class Notice:
    """Whether this process was asked to end.

    Attributes:
        came: the signal's name; None for none.
        waits: whether the process ends when it asks for the notice; else as soon as the signal comes.
    """

    def __init__(self) -> None:
        self.came: str | None = None
        self.waits = is_rank(os.environ)

    def note(self, number: int, _frame: FrameType | None) -> None:
        """The handler.

        Raises:
            Preempted: where nobody waits for this process and it has nothing to save.
        """
        if signal.getsignal(signal.SIGTERM) != self.note:  # a launcher, which passes SIGTERM on to its ranks
            os.kill(os.getpid(), signal.SIGTERM)
            return
        if _rank_lost():
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        self.came = signal.Signals(number).name
        if not self.waits:
            raise Preempted(f"{self.came} came before the first step; nothing is saved: start again")


def _rank_lost() -> bool:
    """Whether another rank of this machine has crashed or vanished, so that nobody is left to agree with."""
    if STATUS_DIR not in os.environ:
        return False
    with contextlib.suppress(OSError, ValueError):
        folder = Path(os.environ[STATUS_DIR])
        if any(end.code not in (DONE, PREEMPTED) for end in ends(folder).values()):
            return True
        return not all(_alive(pid) for pid in pids(folder))
    return False


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


_current: Notice | None = None


@contextmanager
def caught() -> Iterator[Notice]:
    """Note the signals for the time being, and put the handlers back that were there.

    Inside another `caught` it gives the same notice. Signals reach Python's main thread only; elsewhere none is noted.
    """
    global _current
    if _current is not None:
        yield _current
        return
    notice = Notice()
    if threading.current_thread() is not threading.main_thread():
        yield notice
        return
    _current = notice
    before = {number: signal.signal(number, notice.note) for number in SIGNALS}
    try:
        yield notice
    finally:
        _current = None
        for number, handler in before.items():
            signal.signal(number, handler)
