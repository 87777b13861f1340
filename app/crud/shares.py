"""A share of the machine for what is expensive: a few at a time, and fewer for one network."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from app.core.context import request_context
from app.core.exceptions import Overloaded
from app.core.groups import network_of

MAX_AT_ONCE = 6
MAX_OF_NETWORK = 4


class Share:
    """Lets MAX_AT_ONCE in at a time, MAX_OF_NETWORK of them from one network; nobody waits."""

    def __init__(self) -> None:
        self._inside: Counter[str] = Counter()

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Be one of them for a while. Raises Overloaded when there is no room."""
        network = network_of(request_context().ip)
        if self._inside.total() >= MAX_AT_ONCE or self._inside[network] >= MAX_OF_NETWORK:
            raise Overloaded
        self._inside[network] += 1
        try:
            yield
        finally:
            self._inside[network] -= 1
            if not self._inside[network]:
                del self._inside[network]
