"""The processes of one start: started, watched, signalled, and ended where they do not end by themselves."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from rlvr.launch.status import DONE, PREEMPTED, ends, pids, started
from rlvr.launch.supervisor import Outcome, outcome

POLL_SECONDS = 0.2
GRACE_SECONDS = 10.0
"""How long the other ranks may go on after one has failed: they wait for it, and would do so until the time-out."""

FOR_SRUN = {signal.SIGTERM: signal.SIGUSR1, signal.SIGINT: signal.SIGTERM}
"""What srun gets for a signal that came.

SIGUSR1 it forwards to every task, where it asks a rank to save and end. At SIGTERM it ends its tasks with SIGKILL, on
every node. An interrupt comes to just that, for there is nothing to save: at one SIGINT srun only reports how its
tasks are, and at a second one within a second it kills them.
"""


class Signals:
    """SIGINT and SIGTERM that came while the ranks run, kept for the loop that watches them."""

    def __init__(self) -> None:
        self.came: list[int] = []

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self.came.append(number)

    @contextmanager
    def caught(self) -> Iterator["Signals"]:
        """Take both signals for the time being."""
        before = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


class Watch:
    """One start of the ranks.

    Args:
        process: what has started them: torch's elastic launcher, or srun.
        folder: where the ranks write their status.
        ranks: those that end up in `folder`.
        through_starter: let `process`, which is srun, signal the ranks; else signal each one on this machine, for
            torch's launcher would kill them 30 seconds later.
    """

    def __init__(self, process: subprocess.Popen, folder: Path, ranks: range, through_starter: bool) -> None:
        self.process, self.folder, self.ranks, self.through_starter = process, folder, ranks, through_starter
        self.told: set[tuple[int, int]] = set()

    def tell(self, number: int) -> None:
        """Pass a signal on, to each process once: ranks that are not there yet get it when they are."""
        for pid in self._srun(number) if self.through_starter else pids(self.folder):
            if (pid, number) not in self.told:
                self.told.add((pid, number))
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, FOR_SRUN[signal.Signals(number)] if self.through_starter else number)

    def _srun(self, number: int) -> set[int]:
        """Its process id, once all tasks understand what it forwards: before they have said their id they die of it."""
        return {self.process.pid} if number == signal.SIGINT or started(self.folder).issuperset(self.ranks) else set()

    def kill(self) -> None:
        """End everything at once."""
        # It ends what it has started, srun on every node: nobody is left behind that had no time to say its id.
        self.process.terminate()
        for pid in pids(self.folder):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(GRACE_SECONDS)
        self.process.kill()

    def wait(self, signals: Signals, grace: float = GRACE_SECONDS) -> int:
        """Until the ranks have ended; what has started them says with which code."""
        deadline: float | None = None
        while self.process.poll() is None:
            for number in set(signals.came):
                self.tell(number)
            failed = any(end.code not in (DONE, PREEMPTED) for end in ends(self.folder).values())
            if deadline is None and (failed or signal.SIGINT in signals.came):
                deadline = time.monotonic() + grace
            if signals.came.count(signal.SIGINT) > 1 or (deadline is not None and time.monotonic() > deadline):
                self.kill()
            time.sleep(POLL_SECONDS)
        return self.process.wait()


def run_once(
    command: Sequence[str],
    environment: Mapping[str, str],
    folder: Path,
    ranks: range,
    signals: Signals,
    through_starter: bool = False,
) -> Outcome:
    """Start the ranks once and wait for their end.

    Args:
        command: what starts them.
        environment: of it and of them.
        folder: where they write their status.
        ranks: those that end up in `folder`.
        signals: passed on as they come.
        through_starter: as in `Watch`.
    """
    process = subprocess.Popen(command, env=dict(environment), start_new_session=True)
    watch = Watch(process, folder, ranks, through_starter)
    try:
        code = watch.wait(signals)
    except BaseException:
        watch.kill()
        raise
    return outcome(
        ends(folder), ranks, code, interrupted=signal.SIGINT in signals.came, terminated=signal.SIGTERM in signals.came
    )
