"""PostgreSQL's driver, with a bounded end for statements whose callers are gone.

psycopg cancels the statement of a cancelled task by itself, but waits up to ten seconds for a
server that says nothing, leaves the statement alone when the task is cancelled once more, and
does not wait until the server has dropped the connection.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any

from psycopg import AsyncConnection
from psycopg.pq import TransactionStatus
from psycopg.waiting import wait_async

log = logging.getLogger("app.database")
# How long a statement, and then its connection, may take to be gone before they are given up.
CANCEL_SECONDS = 1.0
# Requests to cancel that are under way at once. They need no place among the server's connections.
_AT_ONCE = 4
_INTERVAL_SECONDS = 0.1


class Connection(AsyncConnection[Any]):
    """A connection whose place in the pool stays taken, when its task is cancelled, until the
    server has ended the statement and dropped the connection."""

    turns: asyncio.Semaphore
    _was_cancelled = False  # with a statement under way

    async def wait(
        self,
        gen: Any,
        interval: float = _INTERVAL_SECONDS,
        timeout: float | None = None,  # noqa: ASYNC109 the driver's
    ) -> Any:
        """Wait for the server; the driver calls it for every statement."""
        try:
            return await wait_async(gen, self.pgconn.socket, interval=interval, timeout=timeout)
        except asyncio.CancelledError:
            if self.pgconn.transaction_status == TransactionStatus.ACTIVE:
                self._was_cancelled = True
                await _completed(self._end_statement(gen))
            raise

    async def close(self) -> None:
        """Close the connection; one that was cancelled is closed when the server has dropped it,
        or could not within CANCEL_SECONDS."""
        if self.closed or not self._was_cancelled:
            await super().close()
            return
        with socket.socket(fileno=os.dup(self.pgconn.socket)) as copy:
            await super().close()
            with suppress(OSError):  # also that time is up
                async with asyncio.timeout(CANCEL_SECONDS):
                    await _ended(copy)

    async def _end_statement(self, gen: Any) -> None:
        # How the statement ends does not matter; that the server is silent or away shows below.
        with suppress(Exception):
            async with asyncio.timeout(CANCEL_SECONDS):
                async with self.turns:
                    await self.cancel_safe(timeout=CANCEL_SECONDS)
                await wait_async(gen, self.pgconn.socket, interval=_INTERVAL_SECONDS)
        if self.pgconn.transaction_status == TransactionStatus.ACTIVE:
            log.warning("statement left to the server", extra={"seconds": CANCEL_SECONDS})
            self.pgconn.finish()


class Opener:
    """Opens the connections of all pools of one app."""

    def __init__(self) -> None:
        self._turns = asyncio.Semaphore(_AT_ONCE)

    async def __call__(self, *arguments: Any, **options: Any) -> Connection:
        """Return an open connection; what is given, and raised, is the driver's."""
        connection = await Connection.connect(*arguments, **options)
        connection.turns = self._turns
        return connection


async def _completed(work: Coroutine[Any, Any, None]) -> None:
    """Do some work to its end, also if the task is cancelled once more meanwhile."""
    task = asyncio.create_task(work)
    while not task.done():
        with suppress(asyncio.CancelledError):  # its caller raises the one before
            await asyncio.wait({task})


async def _ended(connection: socket.socket) -> None:
    """Return when the other side has closed a connection."""
    connection.setblocking(False)
    loop = asyncio.get_running_loop()
    while await loop.sock_recv(connection, 4096):
        pass
