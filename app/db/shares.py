"""A share of the machine for what is expensive: so many at a time, and fewer for one network."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from app.core.context import request_context
from app.core.exceptions import Overloaded
from app.core.groups import network_of

# At least and at most so many at a time: together they are so many seconds of work, by how long
# each took of late. Among few rows nothing is expensive.
LEAST, MOST = 6, 48
BACKLOG_SECONDS = 0.3
_SMOOTHING = 0.2
_AT_FIRST_SECONDS = 0.01


class Share:
    """Lets `capacity` in at a time, two thirds of them from one network; nobody waits."""

    def __init__(self) -> None:
        self._inside: Counter[str] = Counter()
        self._seconds = _AT_FIRST_SECONDS

    @property
    def capacity(self) -> int:
        """Return how many are let in at a time."""
        return int(min(max(BACKLOG_SECONDS / self._seconds, LEAST), MOST))

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Take one of the places within the block; raise Overloaded when none is free."""
        network = network_of(request_context().ip)
        capacity = self.capacity
        if self._inside.total() >= capacity or self._inside[network] >= capacity * 2 // 3:
            raise Overloaded
        self._inside[network] += 1
        began = time.monotonic()
        try:
            yield
        finally:
            took = time.monotonic() - began
            self._seconds += (took - self._seconds) * _SMOOTHING
            self._inside[network] -= 1
            if not self._inside[network]:
                del self._inside[network]
