"""PostgreSQL's driver: sessions set up also behind a pooler, ends in bounded time, silence noticed.

psycopg cancels the statement of a cancelled task by itself, but waits up to ten seconds for a
server that says nothing, leaves the statement alone when the task is cancelled once more, and
does not wait until the server has dropped the connection. Behind a pooler that lends a server's
session for a transaction only, another client would get its prepared statements and settings
(docs/adr/0031-poolers.md).
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import TYPE_CHECKING, Any

from psycopg import AsyncConnection, AsyncCursor
from psycopg.pq import TransactionStatus
from psycopg.waiting import wait_async

from app.db.silence import Sessions, watched
from app.db.startup_options import settings_in

if TYPE_CHECKING:
    from collections.abc import Iterator

log = logging.getLogger("app.database")
# How long a statement, and then its connection, may take to be gone before they are given up.
CANCEL_SECONDS = 1.0
# Requests to cancel that are under way at once. They need no place among the server's connections.
_AT_ONCE = 4
_INTERVAL_SECONDS = 0.1
# Sets all in one round trip; nothing where a pooler stands between, unless it keeps sessions apart.
_SET_UP = """
SELECT pg_backend_pid(), (
    SELECT count(set_config(name, value, false))
    FROM unnest(%s::text[], %s::text[]) AS wanted (name, value)
    WHERE %s OR pg_backend_pid() = %s
)"""
_SET_LOCALLY = """
SELECT set_config(name, value, true) FROM unnest(%s::text[], %s::text[]) AS wanted (name, value)"""


class Connection(AsyncConnection[Any]):
    """A connection whose place in the pool stays taken, when its task is cancelled, until the
    server has ended the statement and dropped the connection."""

    turns: asyncio.Semaphore
    sessions: Sessions | None = None  # that of this connection is among them, if its pid is known
    is_pooled = False  # the pooler's answer to `pg_backend_pid()` is not what the server said
    by_transaction: Mapping[str, str] | None = None  # to be set at the beginning of each
    _was_cancelled = False  # with a statement under way
    _is_ending = False  # the transaction, and with it our hold on a pooler's connection

    async def wait(
        self,
        gen: Any,
        interval: float = _INTERVAL_SECONDS,
        timeout: float | None = None,  # noqa: ASYNC109 the driver's
    ) -> Any:
        """Wait for the server; the driver calls it for every statement."""
        try:
            with watched(self.pgconn, self.sessions):
                return await wait_async(gen, self.pgconn.socket, interval=interval, timeout=timeout)
        except asyncio.CancelledError:
            if self.pgconn.transaction_status == TransactionStatus.ACTIVE:
                self._was_cancelled = True
                await _completed(self._end_statement(gen))
            raise

    async def commit(self) -> None:
        """Commit."""
        with self._ending():
            await super().commit()

    async def rollback(self) -> None:
        """Roll back."""
        with self._ending():
            await super().rollback()

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

    @contextmanager
    def _ending(self) -> Iterator[None]:
        self._is_ending = True
        try:
            yield
        finally:
            self._is_ending = False

    async def _end_statement(self, gen: Any) -> None:
        # How the statement ends does not matter; that the server is silent or away shows below.
        with suppress(Exception):
            async with asyncio.timeout(CANCEL_SECONDS):
                # When a pooled transaction ends, the pooler hands its connection to others: what
                # would be cancelled then might be theirs. Before that, it is ours until we close.
                if not (self.is_pooled and self._is_ending):
                    async with self.turns:
                        await self.cancel_safe(timeout=CANCEL_SECONDS)
                await wait_async(gen, self.pgconn.socket, interval=_INTERVAL_SECONDS)
        if self.pgconn.transaction_status == TransactionStatus.ACTIVE:
            log.warning("statement left to the server", extra={"seconds": CANCEL_SECONDS})
            self.pgconn.finish()


class TransactionCursor(AsyncCursor[Any]):
    """A cursor behind a pooler: every transaction begins with the settings of the connection, and
    a statement without one (autocommit) gets its own."""

    async def execute(self, *arguments: Any, **options: Any) -> TransactionCursor:
        """Execute a statement."""
        async with self._within():
            await super().execute(*arguments, **options)
        return self

    async def executemany(self, *arguments: Any, **options: Any) -> None:
        """Execute a statement for each of many parameters."""
        async with self._within():
            await super().executemany(*arguments, **options)

    @asynccontextmanager
    async def _within(self) -> AsyncIterator[None]:
        connection: Any = self.connection
        if connection.info.transaction_status != TransactionStatus.IDLE:
            yield
        elif not connection.autocommit:
            await self._begin()
            yield
        else:
            await connection.set_autocommit(False)
            try:
                await self._begin()
                yield
                await connection.commit()
            # A cancelled one is not used any more: its owner closes it.
            except Exception:
                if not connection.closed:
                    await connection.rollback()
                    await connection.set_autocommit(True)
                raise
            await connection.set_autocommit(True)

    async def _begin(self) -> None:
        connection: Any = self.connection
        wanted = connection.by_transaction
        await super().execute(_SET_LOCALLY, [list(wanted), list(wanted.values())])


class Opener:
    """Opens the connections of all pools of one app.

    `pooler` is what is said to stand between: `none` to look, once a connection, `session` for
    one that keeps a session for each of its clients, or `transaction`.
    """

    def __init__(self, wanted: Mapping[str, str], pooler: str = "none") -> None:
        self._turns = asyncio.Semaphore(_AT_ONCE)
        self._wanted = wanted
        self._pooler = pooler
        self._sessions: Sessions | None = None

    async def __call__(self, *arguments: Any, **options: Any) -> Connection:
        """Return an open connection; what is given, and raised, is the driver's.

        The `options` that are given are set afterwards, as poolers refuse or forget them.
        """
        theirs = settings_in(options.pop("options", ""))
        theirs.pop("timezone", None)  # what is read is taken for UTC
        wanted = {**self._wanted, **theirs}
        options["client_encoding"] = "utf8"
        connection = await Connection.connect(*arguments, **options)
        connection.turns = self._turns
        try:
            await self._set_up(connection, wanted)
        except BaseException:
            await connection.close()
            raise
        if self._sessions is None:
            self._sessions = Sessions(lambda: AsyncConnection.connect(*arguments, **options))
        if not connection.is_pooled:
            connection.sessions = self._sessions
        return connection

    async def dispose(self) -> None:
        """Give up what is under way."""
        if self._sessions is not None:
            await self._sessions.close()

    async def _set_up(self, connection: Connection, wanted: Mapping[str, str]) -> None:
        if self._pooler == "transaction":
            connection.is_pooled = True
        else:
            own = connection.info.backend_pid
            arguments = [list(wanted), list(wanted.values()), self._pooler == "session", own]
            # Not in a transaction: to roll it back would undo what was set.
            await connection.set_autocommit(True)
            cursor = await connection.execute(_SET_UP, arguments, prepare=False)
            found = await cursor.fetchone()
            await connection.set_autocommit(False)
            assert found is not None
            connection.is_pooled = found[0] != own
        if connection.is_pooled and self._pooler != "session":
            connection.by_transaction = wanted
            connection.prepare_threshold = None
            connection.cursor_factory = TransactionCursor


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
