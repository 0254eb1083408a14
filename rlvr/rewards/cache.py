"""Outcomes that are known already, the most recently used ones."""

import os
import threading
import weakref
from collections import OrderedDict
from collections.abc import Hashable

from rlvr.rewards.breaker import STRIKE
from rlvr.rewards.protocol import Outcome

_CACHES: "weakref.WeakSet[Cache]" = weakref.WeakSet()


class Cache:
    """A bounded mapping that threads may share. It keeps verdicts only: an answer that ran out of time may have had bad
    luck with a busy machine, and is tried again.

    Args:
        size: entries at most; the one unused for longest leaves first.
    """

    def __init__(self, size: int = 1 << 14) -> None:
        self.size = size
        self._entries: OrderedDict[Hashable, Outcome] = OrderedDict()
        self._lock = threading.Lock()
        _CACHES.add(self)

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: Hashable) -> Outcome | None:
        """The outcome of an earlier comparison."""
        with self._lock:
            found = self._entries.get(key)
            if found is not None:
                self._entries.move_to_end(key)
            return found

    def put(self, key: Hashable, outcome: Outcome) -> None:
        """Keep an outcome, unless it is a failure."""
        if outcome.status in STRIKE:
            return
        with self._lock:
            self._entries[key] = outcome
            self._entries.move_to_end(key)
            while len(self._entries) > self.size:
                self._entries.popitem(last=False)

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._entries.clear()

    def unlock(self) -> None:
        """In a forked copy of the process: the thread that may have held the lock is not here."""
        self._lock = threading.Lock()


def _unlock_all() -> None:
    for cache in list(_CACHES):
        cache.unlock()


os.register_at_fork(after_in_child=_unlock_all)
