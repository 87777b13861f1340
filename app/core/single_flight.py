"""Questions to other machines that any number of callers may ask at once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class SingleFlight(Generic[T]):
    """Asks a question for all who want to know, within `seconds`; one is under way at most.

    A machine that hangs thus costs one connection, however often it is asked about. What came
    of it, an error too, is good for `keep_seconds`.
    """

    def __init__(
        self, question: Callable[[], Awaitable[T]], *, seconds: float, keep_seconds: float = 0
    ) -> None:
        self._question = question
        self._seconds = seconds
        self._keep_seconds = keep_seconds
        self._asked = self._until = 0.0
        self._asking: asyncio.Task[T] | None = None

    async def answer(self) -> T:
        """Return the answer. Raise what the question does; TimeoutError if it takes too long."""
        now = time.monotonic()
        if self._asking is None or (self._asking.done() and now >= self._until):
            self._asked = now
            self._asking = asyncio.create_task(self._ask())
            self._asking.add_done_callback(self._note)
        asking = self._asking
        # Not awaited itself: a driver that talks to a frozen server may take seconds to let go,
        # and a caller who leaves must not take the answer away from the others.
        await asyncio.wait({asking}, timeout=max(0, self._asked + self._seconds - now))
        if not asking.done() or asking.cancelled():
            raise TimeoutError
        return asking.result()

    async def close(self) -> None:
        """Give up what is under way."""
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.wait({self._asking}, timeout=self._seconds)

    async def _ask(self) -> T:
        async with asyncio.timeout(self._seconds):
            return await self._question()

    def _note(self, asked: asyncio.Task[T]) -> None:
        self._until = time.monotonic() + self._keep_seconds
        # Looked at, even if all who asked have left.
        if not asked.cancelled():
            asked.exception()
