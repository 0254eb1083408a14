"""When Python's garbage collector rests."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def collector_rests() -> Iterator[None]:
    """No automatic collection for the time being.

    Start-up makes objects that stay: modules, classes, problems. Collections in between walk over all of them again and
    again and free next to nothing, for a quarter of the processor's time.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
