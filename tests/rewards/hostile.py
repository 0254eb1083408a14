"""What workers of some tests run instead of math-verify: the answer says what happens."""

import os
import time

from rlvr.rewards.policy import Policy


def decide(answer: str, golds: tuple[str, ...], policy: Policy) -> tuple[str, str]:
    """Do what the answer says; `fine` is correct, and so is whatever comes back at all."""
    kind, _, rest = answer.partition(" ")
    if kind == "sleep":
        time.sleep(600)
    elif kind == "spin":
        while True:
            pass
    elif kind == "power":  # one operation in C, which no signal handler of Python interrupts
        return "correct", str(7 ** (7**12))[:9]
    elif kind == "memory":
        return "correct", str(len(bytearray(3 << 30)))
    elif kind == "exception":
        raise RecursionError("too deep")
    elif kind == "exit":
        os._exit(1)
    elif kind == "segfault":
        os.abort()
    elif kind == "write":
        with open(rest, "wb") as file:
            file.write(b"x")
    elif kind == "fork" and os.fork() == 0:
        os._exit(0)
    elif kind == "milliseconds":
        time.sleep(float(rest) / 1000)
    return "correct", ""
