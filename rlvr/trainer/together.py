"""Ranks that succeed or fail together: what one of them cannot do ends the step on all, instead of a wait for it."""

import threading
from collections.abc import Callable
from typing import TypeVar

from rlvr.checkpoints.progress import PROGRESS
from rlvr.errors import UserError
from rlvr.launch.agreement import alone, everywhere
from rlvr.launch.status import Disagreement

Result = TypeVar("Result")

PAUSE_SECONDS = 1.0
"""Between two looks at what the lead does for all; well below every time-out of a collective operation."""


def is_lead() -> bool:
    """Whether this is the rank that writes for all."""
    import torch.distributed as dist

    return not (dist.is_available() and dist.is_initialized()) or bool(dist.get_rank() == 0)


def _settled(action: Callable[[], Result], tells: bool) -> tuple[Result, list[Result | None]]:
    """What an action gives here, and on every rank that tells, once it is clear that it failed on none."""
    result, failure = None, None
    try:
        result = action()
    except Exception as error:
        failure = error
    said = None if failure is None else (isinstance(failure, UserError), f"{failure}")
    told = everywhere((said, result if tells else None))
    if failure is not None:
        raise failure
    for rank, (found, _) in enumerate(told):
        if found is not None:
            known, message = found
            raise Disagreement(message) if known else RuntimeError(f"rank {rank} failed: {message}")
    return result, [value for _, value in told]  # type: ignore[return-value]


def together(action: Callable[[], Result]) -> Result:
    """Do something on this rank, and wait for the others; called by all together.

    Raises:
        Disagreement: where another rank raised a `UserError`, with its message.
        RuntimeError: where another rank raised something else; so the reason of a full disk is still in the text.
    """
    return _settled(action, tells=False)[0]


def from_lead(action: Callable[[], Result]) -> Result:
    """What the lead's action gives, on every rank; only the lead does it, and its errors are raised everywhere.

    The others wait for as long as the lead finishes files: hashing a checkpoint may take longer than the time-out of a
    collective operation. Where it finishes none for that long, they end as in every other wait.

    Raises:
        Disagreement: as `together`.
        RuntimeError: likewise.
    """
    lead = is_lead()
    return _settled(lambda: _in_sight(action) if lead else _look_on(), tells=lead)[1][0]  # type: ignore[return-value]


def _in_sight(action: Callable[[], Result]) -> Result:
    """Do something while the others look on: beside this thread, which tells them that it goes on."""
    if alone():
        return action()
    results: list[Result] = []
    failures: list[BaseException] = []

    def act() -> None:
        try:
            results.append(action())
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=act, daemon=True)
    thread.start()
    seen = PROGRESS.files
    thread.join(PAUSE_SECONDS)
    while thread.is_alive():
        if PROGRESS.files != seen:
            seen = PROGRESS.files
            everywhere(True)
        thread.join(PAUSE_SECONDS)
    everywhere(False)
    if failures:
        raise failures[0]
    return results[0]


def _look_on() -> None:
    """Wait while the lead says that it goes on."""
    while everywhere(None)[0]:
        pass
