"""A limit on how many expensive queries run at once, and how many of them for one network."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from app.core.context import request_context
from app.core.exceptions import Overloaded
from app.core.groups import network_of

# The capacity: as many queries as are so many seconds of work together, by how long each took of
# late. Among few rows nothing is expensive.
MIN_CAPACITY, MAX_CAPACITY = 6, 48
BACKLOG_SECONDS = 0.3
_SMOOTHING = 0.2
_AT_FIRST_SECONDS = 0.01


class ConcurrencyLimit:
    """Allow at most `capacity` expensive queries at once, and at most two thirds of them from one
    network; refuse the rest without waiting."""

    def __init__(self) -> None:
        self._running: Counter[str] = Counter()
        self._seconds = _AT_FIRST_SECONDS

    @property
    def capacity(self) -> int:
        """Return how many queries may run at once."""
        return int(min(max(BACKLOG_SECONDS / self._seconds, MIN_CAPACITY), MAX_CAPACITY))

    @contextmanager
    def slot(self) -> Iterator[None]:
        """Hold a slot within the block; raise Overloaded when none is free."""
        network = network_of(request_context().ip)
        capacity = self.capacity
        if self._running.total() >= capacity or self._running[network] >= capacity * 2 // 3:
            raise Overloaded
        self._running[network] += 1
        began = time.monotonic()
        try:
            yield
        finally:
            took = time.monotonic() - began
            self._seconds += (took - self._seconds) * _SMOOTHING
            self._running[network] -= 1
            if not self._running[network]:
                del self._running[network]
