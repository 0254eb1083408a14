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

from rlvr.launch.status import DONE, PREEMPTED, ends, pids
from rlvr.launch.supervisor import Outcome, outcome

POLL_SECONDS = 0.2
GRACE_SECONDS = 10.0
"""How long the other ranks may go on after one has failed: they wait for it, and would do so until the time-out."""


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
        through_starter: pass signals to `process`, which passes them on (srun); else to each rank on this machine, for
            torch's launcher would kill them 30 seconds later.
    """

    def __init__(self, process: subprocess.Popen, folder: Path, through_starter: bool) -> None:
        self.process, self.folder, self.through_starter = process, folder, through_starter
        self.told: set[tuple[int, int]] = set()

    def tell(self, number: int) -> None:
        """Pass a signal on, to each process once: ranks that are not there yet get it when they are."""
        targets = {self.process.pid} if self.through_starter else pids(self.folder)
        for pid in targets:
            if (pid, number) not in self.told:
                self.told.add((pid, number))
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)

    def kill(self) -> None:
        """End everything at once."""
        self.process.terminate()  # it ends what it has started: nobody is left behind that had no time to say its id
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
    watch = Watch(process, folder, through_starter)
    try:
        code = watch.wait(signals)
    except BaseException:
        watch.kill()
        raise
    return outcome(
        ends(folder), ranks, code, interrupted=signal.SIGINT in signals.came, terminated=signal.SIGTERM in signals.came
    )
