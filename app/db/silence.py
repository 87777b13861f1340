"""Connections to PostgreSQL that have fallen silent for good, without a word from the network.

A statement whose answer does not come may be slow, or its connection dead. A second connection
asks the server: where it is not working for us, the first one is cut, and met from then on as one
that the server has closed.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from app.core.single_flight import SingleFlight

log = logging.getLogger("app.database")
# So long an answer may take before the server is asked what it is doing; then twice as long, and
# so on.
SILENCE_SECONDS = 1.0
# The answer to the question, and what is still on its way when it comes.
_ANSWER_SECONDS, _KEEP_SECONDS, _GRACE_SECONDS = 1.0, 0.25, 0.2
_LOOK = (
    "SELECT pid, state FROM pg_stat_activity"
    " WHERE datname = current_database() AND usename = session_user"
)
# Not `disabled`, which says nothing, nor a missing process: it may be on another server.
_NOT_WORKING = {"idle", "idle in transaction", "idle in transaction (aborted)"}


class Sessions:
    """What the server says of our sessions, asked for all that want to know at once."""

    def __init__(self, connect: Callable[[], Awaitable[Any]]) -> None:
        self._connect = connect
        self._states = SingleFlight(self._look, seconds=_ANSWER_SECONDS, keep_seconds=_KEEP_SECONDS)

    async def is_idle(self, pid: int) -> bool:
        """Return whether a session is known to work on nothing; raise what a connection does."""
        return (await self._states.answer()).get(pid) in _NOT_WORKING

    async def close(self) -> None:
        """Give up what is under way."""
        await self._states.close()

    async def _look(self) -> Mapping[int, str]:
        connection = await self._connect()
        try:
            return dict(await (await connection.execute(_LOOK)).fetchall())
        finally:
            await connection.close()


@contextmanager
def watched(pgconn: Any, sessions: Sessions | None) -> Iterator[None]:
    """Cut a connection that waits for an answer within the block, and gets none from a server that
    is not working on any."""
    if sessions is None:
        yield
        return
    looking: list[asyncio.Task[None]] = []

    def begin() -> None:
        looking.append(asyncio.create_task(_cut_if_idle(pgconn, sessions)))

    timer = asyncio.get_running_loop().call_later(SILENCE_SECONDS, begin)
    try:
        yield
    finally:
        timer.cancel()
        for each in looking:
            each.cancel()


async def _cut_if_idle(pgconn: Any, sessions: Sessions) -> None:
    pause = SILENCE_SECONDS
    while True:
        # Whatever keeps the server from answering also explains the silence.
        with suppress(Exception):
            if await sessions.is_idle(pgconn.backend_pid):
                await asyncio.sleep(_GRACE_SECONDS)
                log.warning("silent connection cut", extra={"seconds": SILENCE_SECONDS})
                with socket.socket(fileno=os.dup(pgconn.socket)) as copy:
                    copy.shutdown(socket.SHUT_RDWR)
                return
        await asyncio.sleep(pause)
        pause *= 2
