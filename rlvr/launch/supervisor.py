"""Restarts after a crash: whether to start again, from what, and when to give up."""

from collections.abc import Callable
from dataclasses import dataclass

from rlvr.launch.status import CRASHED, DONE, INTERRUPTED, PREEMPTED, REFUSED, End

TERMINATED = 143
"""Exit code after SIGTERM where the ranks did not save: 128 + 15."""


@dataclass(frozen=True)
class Outcome:
    """How one start of the ranks ended.

    Attributes:
        code: for `rlvr train` to return.
        message: of a `UserError`; empty for none.
        failed: ranks that crashed or died without a word.
    """

    code: int
    message: str = ""
    failed: tuple[int, ...] = ()


def outcome(ends: dict[int, End], ranks: range, code: int, interrupted: bool, terminated: bool) -> Outcome:
    """How a start ended, from what its ranks wrote down.

    A rank that said nothing was killed: by its launcher, after another one had ended, or by the system.

    Args:
        ends: by rank.
        ranks: those that were started.
        code: exit code of what started them, which knows no more than 0 or not, and perhaps that one was refused.
        interrupted: whether SIGINT came.
        terminated: whether SIGTERM came.
    """
    refused = next((end.message for _, end in sorted(ends.items()) if end.code == REFUSED and end.message), "")
    codes = {end.code for end in ends.values()}
    if interrupted:
        return Outcome(INTERRUPTED)
    if REFUSED in codes or code == REFUSED:  # the disk may have been too full for a rank to write down why
        return Outcome(REFUSED, refused or "a rank ended with exit code 2; what it said stands above, or in its log")
    failed = tuple(rank for rank in ranks if rank not in ends or ends[rank].code not in (DONE, PREEMPTED))
    if PREEMPTED in codes and codes <= {DONE, PREEMPTED}:
        return Outcome(PREEMPTED)
    if code == DONE and not failed:
        return Outcome(DONE)
    return Outcome(TERMINATED if terminated else CRASHED, failed=failed)


@dataclass(frozen=True)
class Decision:
    """What follows an end.

    Attributes:
        restart: whether to start again.
        fruitless: restarts in a row without a newer checkpoint, with this one.
        reason: for people; empty where the end says enough.
    """

    restart: bool
    fruitless: int = 0
    reason: str = ""


def decide(code: int, before: int | None, after: int | None, fruitless: int, max_restarts: int) -> Decision:
    """Whether to start again after an end; only crashes are worth it.

    Args:
        code: how the start ended.
        before: step of the newest checkpoint when it began; None for none.
        after: the same, now.
        fruitless: restarts in a row, up to this start, that made no newer checkpoint.
        max_restarts: `launch.max_restarts`.
    """
    if code != CRASHED or max_restarts == 0:
        return Decision(restart=False)
    where = "no checkpoint" if after is None else f"the checkpoint of step {after}"
    spent = 0 if after is not None and (before is None or after > before) else fruitless
    if spent >= max_restarts:
        return Decision(
            restart=False,
            reason=f"gave up after {spent} restarts in a row without a newer checkpoint: there is {where}; see the "
            "error above, and go on with run.resume=true once it is mended",
        )
    start = "from the beginning, for there is no checkpoint" if after is None else f"from {where}"
    return Decision(True, spent + 1, f"the run crashed; restart {spent + 1} of {max_restarts} in a row, {start}")


def supervise(
    start: Callable[[int], Outcome], newest: Callable[[], int | None], max_restarts: int, say: Callable[[str], None]
) -> Outcome:
    """Start, and start again after crashes, until the run is done or it makes no sense any more.

    Args:
        start: starts the ranks and waits for them; gets how many starts there were before.
        newest: step of the newest good checkpoint.
        max_restarts: restarts in a row without a newer checkpoint.
        say: tells people.
    """
    fruitless = starts = 0
    while True:
        before = newest()
        ended = start(starts)
        starts += 1
        decision = decide(ended.code, before, newest(), fruitless, max_restarts)
        if decision.reason:
            say(decision.reason)
        if not decision.restart:
            return ended
        fruitless = decision.fruitless
