"""SQLite inside the event loop, behind the interface that SQLAlchemy knows from aiosqlite.

A statement takes microseconds, and a hop to a thread many of them: what is short by its nature
runs where it is called. What may take long, a COMMIT that waits for the disk above all, runs in
a thread. One connection writes at a time, in the order they came: SQLite would let them try in
turns, with pauses, and the unlucky wait for seconds.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy.engine import URL

T = TypeVar("T")
_PRAGMAS = (
    "journal_mode=WAL",
    # NORMAL would not survive a power cut: what is acknowledged must be on the disk.
    "synchronous=FULL",
    "foreign_keys=ON",
)
# An UPDATE or a DELETE may touch any number of rows.
_SHORT = ("SELECT", "INSERT", "BEGIN", "SAVEPOINT", "RELEASE", "ROLLBACK", "PRAGMA")
_PAUSE_SECONDS = 0.005
_INTERRUPT_SECONDS = 0.05
LOCK_WAIT_SECONDS = 3


def open_raw(
    url: URL, *, busy_seconds: float = LOCK_WAIT_SECONDS, exclusive: bool = False
) -> sqlite3.Connection:
    """Return a connection of the standard library's, set up as all of them.

    One that is `exclusive` keeps every lock it gets, and gets none while there are others: idle
    ones hold a lock of a file in WAL mode, too.
    """
    [path], given = url.get_dialect()().create_connect_args(url)
    options: dict[str, Any] = {**given, "timeout": busy_seconds, "isolation_level": None}
    options["check_same_thread"] = False  # one at a time uses it, but not always the same one
    connection: sqlite3.Connection = sqlite3.connect(path, **options)
    # First: what was opened to be shared stays so.
    first = ["locking_mode=EXCLUSIVE"] if exclusive else []
    try:
        for pragma in (*first, *_PRAGMAS):
            connection.execute(f"PRAGMA {pragma}")
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def why_unusable(url: URL) -> str | None:
    """Return why a file cannot be the database, as SQLite says no more than that it cannot."""
    if str(url.database).startswith("file:"):
        return None  # a URI of SQLite's own
    path = Path(str(url.database))
    folder = path.parent
    if path.is_dir():
        return "is a folder"
    if not folder.is_dir():
        return f"there is no folder {folder}"
    if path.exists() and not os.access(path, os.R_OK | os.W_OK):
        return "this user may not write to it"
    if not os.access(folder, os.W_OK | os.X_OK):
        return f"this user may not write to the folder {folder}"
    return None


class Opener:
    """Opens the connections of one engine, of which one writes at a time."""

    def __init__(self, url: URL) -> None:
        self._url = url
        self._turns = asyncio.Lock()

    async def __call__(self) -> Connection:
        opening = asyncio.ensure_future(asyncio.to_thread(open_raw, self._url))
        try:
            raw = await asyncio.shield(opening)
        except asyncio.CancelledError:
            # The thread goes on all the same.
            opening.add_done_callback(_close_opened)
            raise
        raw.execute("PRAGMA busy_timeout=0")
        return Connection(raw, self._turns)


def _close_opened(opening: asyncio.Future[sqlite3.Connection]) -> None:
    """Close the connection that nobody waits for any more, if there is one."""
    if not opening.cancelled() and opening.exception() is None:
        opening.result().close()


class Connection:
    """A connection with the methods of aiosqlite that SQLAlchemy's dialect calls."""

    isolation_level = None

    def __init__(self, raw: sqlite3.Connection, turns: asyncio.Lock) -> None:
        self._connection: sqlite3.Connection | None = raw
        self._raw = raw
        self._turns = turns
        self._has_turn = False

    def cursor(self) -> Cursor:
        return Cursor(self, self._raw.cursor())

    async def create_function(self, *definition: Any, **options: Any) -> None:
        self._raw.create_function(*definition, **options)

    async def run(self, sql: str, work: Callable[[], T]) -> T:
        """Run the work of a statement: in a thread if it may take long."""
        if sql.startswith("BEGIN IMMEDIATE"):
            return await self._begin(work)
        if sql.startswith(_SHORT):
            return work()
        return await self._in_thread(work, interrupt=self._raw.interrupt)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[sqlite3.Connection]:
        """Begin a transaction that writes, on the driver's connection; commit at the end."""
        await self._begin(lambda: self._raw.execute("BEGIN IMMEDIATE"))
        try:
            yield self._raw
            await self.commit()
        except BaseException:
            await self.rollback()
            raise

    async def commit(self) -> None:
        try:
            if self._has_turn:
                await self._in_thread(self._raw.commit)
            else:
                self._raw.commit()
        finally:
            if not self._raw.in_transaction:
                self._end_turn()

    async def rollback(self) -> None:
        try:
            self._raw.rollback()
        finally:
            self._end_turn()

    def refuse_readonly(self) -> None:
        """Raise sqlite3.OperationalError if nothing could be written; for a free connection.

        Without a turn: a transaction that begins and ends in one step of the loop is in nobody's
        way, and where another one writes it is possible to.
        """
        try:
            self._raw.execute("BEGIN IMMEDIATE")
            # That alone is a transaction that reads, where nothing can be written.
            self._raw.execute("PRAGMA user_version=0")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                raise
        finally:
            self._raw.rollback()

    async def close(self) -> None:
        self.stop()

    def stop(self) -> None:
        """Close the connection; what was not committed never happened."""
        self._connection = None
        self._raw.close()
        self._end_turn()

    async def _begin(self, work: Callable[[], T]) -> T:
        try:
            async with asyncio.timeout(LOCK_WAIT_SECONDS):
                await self._turns.acquire()
                self._has_turn = True
                return await self._until_free(work)
        except TimeoutError:
            self._end_turn()
            raise sqlite3.OperationalError("database is locked") from None
        except BaseException:
            self._end_turn()
            raise

    async def _until_free(self, work: Callable[[], T]) -> T:
        """Retry the work while another process is writing."""
        while True:
            try:
                return work()
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                    raise
            await asyncio.sleep(_PAUSE_SECONDS)

    async def _in_thread(
        self, work: Callable[[], T], *, interrupt: Callable[[], None] = lambda: None
    ) -> T:
        """Run in a thread, and return only when it is done: nobody else may use the connection.

        When it is cancelled, `interrupt` is called until it is done: the first call may come
        before the thread begins.
        """
        working = asyncio.get_running_loop().run_in_executor(None, work)
        try:
            return await asyncio.shield(working)
        except asyncio.CancelledError:
            while not working.done():
                interrupt()
                with suppress(asyncio.CancelledError):  # once more
                    await asyncio.wait({working}, timeout=_INTERRUPT_SECONDS)
            working.exception()  # retrieved, so that asyncio logs nothing
            raise

    def _end_turn(self) -> None:
        if self._has_turn:
            self._has_turn = False
            self._turns.release()


class Cursor:
    """A cursor with the methods of aiosqlite that SQLAlchemy's dialect calls."""

    def __init__(self, connection: Connection, raw: sqlite3.Cursor) -> None:
        self._connection = connection
        self._raw = raw
        self.arraysize = raw.arraysize

    async def __aenter__(self) -> Cursor:
        return self

    @property
    def description(self) -> Any:
        return self._raw.description

    @property
    def rowcount(self) -> int:
        return self._raw.rowcount

    @property
    def lastrowid(self) -> int | None:
        return self._raw.lastrowid

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> Awaitable[Any]:
        return self._connection.run(sql, lambda: self._raw.execute(sql, parameters))

    def executemany(self, sql: str, parameters: Sequence[Sequence[Any]]) -> Awaitable[Any]:
        return self._connection.run(sql, lambda: self._raw.executemany(sql, parameters))

    async def fetchall(self) -> list[Any]:
        return self._raw.fetchall()

    async def close(self) -> None:
        self._raw.close()
