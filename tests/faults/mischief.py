"""Rewards for `rlvr train` that disturb a run: `+reward.custom={path: "tests.faults.mischief:disturb"}`.

MISCHIEF is `what:rank:call:file`: at its call (from 1) that rank notes the time in the file, and then is asked to end,
or stalls. Without it nothing happens.
"""

import os
import signal
import time
from pathlib import Path
from typing import Any

calls = 0


def stall() -> None:
    """Longer than anybody waits."""
    end = time.monotonic() + 300
    while time.monotonic() < end:
        time.sleep(0.2)


def disturb(completions: list[str], golds: list[str], **_: Any) -> list[float]:
    """The length of each completion in characters, after the mischief."""
    global calls
    calls += 1
    what, rank, call, file = os.environ.get("MISCHIEF", "none:0:0:").split(":", 3)
    if calls == int(call) and os.environ.get("RANK", "0") == rank:
        Path(file).write_text(str(time.time()))
        if what == "ask":
            os.kill(os.getpid(), signal.SIGTERM)
        else:
            stall()
    return [float(len(completion) % 3) for completion in completions]
