"""Mails while Redis takes no tasks: after a while the API process delivers them itself."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import suppress

from app.tasks.dispatcher import Dispatcher
from app.tasks.queue import CeleryNotifier

log = logging.getLogger("app.queue")
# How often it is seen whether Redis takes tasks, and for how long it has to take none.
LOOK_SECONDS = 5.0
PATIENCE_SECONDS = 20.0


class Fallback:
    """Wakes the workers by way of Redis; where that takes no tasks (it is full, away or frozen),
    delivers from this process until it does.

    Any number of processes may deliver at once, workers too: a single one claims a mail.
    """

    def __init__(self, waker: CeleryNotifier, dispatcher: Dispatcher) -> None:
        self._waker = waker
        self._dispatcher = dispatcher
        self._task: asyncio.Task[None] | None = None
        self._down_since: float | None = None
        self._delivers = False
        self._is_over = False

    def start(self) -> None:
        """Begin to wake, and to look."""
        self._waker.start()
        self._task = asyncio.create_task(self._run(), name="queue-fallback")

    async def wake(self) -> None:
        """Have the mails looked for."""
        await self._waker.wake()
        if self._delivers:
            await self._dispatcher.wake()

    async def stop(self) -> None:
        """Finish what is being sent from here."""
        # Said as well: what is being stopped when the cancellation comes may swallow it.
        self._is_over = True
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        await self._waker.stop()
        await self._dispatcher.stop()

    async def _run(self) -> None:
        while not self._is_over:
            # Also with nothing new: beat reaches the workers no better than we do.
            await self._waker.wake()
            await asyncio.sleep(LOOK_SECONDS)
            await self._look(time.monotonic())

    async def _look(self, now: float) -> None:
        if not self._waker.is_down:
            self._down_since = None
            if self._delivers:
                self._delivers = False
                # Cut off, a mail that its server has taken by now would be sent once more.
                await self._dispatcher.pause()
            return
        self._down_since = self._down_since or now
        if not self._delivers and now >= self._down_since + PATIENCE_SECONDS:
            log.warning("mails are delivered by this process until redis takes tasks")
            self._delivers = True
            self._dispatcher.start()
