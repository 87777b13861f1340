"""Faults on demand: the app on a real socket, statements and commits that fail, row dumps."""

from __future__ import annotations

import asyncio
import socket
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import (
    AbstractContextManager,
    ExitStack,
    asynccontextmanager,
    contextmanager,
    nullcontext,
)
from pathlib import Path
from typing import Any

import httpx2
import psycopg
import pymysql
import pytest
import uvicorn
from fastapi import FastAPI
from sqlalchemy import event, func, select
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import QueuePool

from app.db import sqlite
from app.db.engine import Database
from app.models import Base
from app.models.outbox import Mail
from tests.conftest import make_settings
from tests.support.apps import app_of
from tests.support.client import Client
from tests.support.openapi import Contract
from tests.support.sql import engines

_WRITES = ("INSERT", "UPDATE", "DELETE")
_WROTE = "tests_wrote"
Fault = Callable[[], Exception]


# --- The app on a socket ---------------------------------------------------------------------


class _Server(uvicorn.Server):
    def capture_signals(self) -> AbstractContextManager[None]:  # type: ignore[override]  # same use
        """Leave Ctrl-C to pytest."""
        return nullcontext()


@asynccontextmanager
async def serve(app: FastAPI) -> AsyncIterator[str]:
    """The app behind uvicorn in this event loop; its base URL.

    In-process transports wait for a request's clean-up, which no caller on a socket does, and
    cannot hang up in the middle.
    """
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(app, lifespan="off", ws="none", log_config=None, access_log=False)
    server = _Server(config)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    await eventually(lambda: server.started)
    host, port = listener.getsockname()
    try:
        yield f"http://{host}:{port}"
    finally:
        server.should_exit = True
        await serving
        listener.close()


@asynccontextmanager
async def served_client(
    url: str, data_dir: Path, contract: Contract, **overrides: object
) -> AsyncIterator[Client]:
    """A client, over TCP, of an app of its own on some database."""
    limits = httpx2.Limits(max_connections=300)
    async with (
        app_of(make_settings(url, data_dir, **overrides)) as app,
        serve(app) as base_url,
        httpx2.AsyncClient(base_url=base_url, timeout=30, limits=limits) as http,
    ):
        yield Client(http, app, contract)


async def eventually(condition: Callable[[], bool], *, seconds: float = 10) -> None:
    """Return as soon as a condition holds that nothing announces."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 nothing announces it
            await asyncio.sleep(0.01)


def checked_out(database: Database, of: AsyncEngine | None = None) -> int:
    """How many connections of a pool, the one for writing by default, are in use."""
    pool = (of or database.engine).pool
    assert isinstance(pool, QueuePool)
    return pool.checkedout()


# --- Statements and commits that fail --------------------------------------------------------


class Sabotage:
    """Makes writing transactions fail. `times` bounds how often; `hits` counts it."""

    def __init__(self, act: Callable[[], None], times: float) -> None:
        self._act = act
        self._times = times
        self.hits = 0

    def strike(self) -> None:
        if self.hits < self._times:
            self.hits += 1
            self._act()


@contextmanager
def sabotaged_commits(
    database: Database, act: Callable[[], None], *, times: float = float("inf")
) -> Iterator[Sabotage]:
    """Call `act` right before the COMMIT of every transaction that has written something."""
    sabotage, engine = Sabotage(act, times), database.engine.sync_engine

    def began(connection: Any) -> None:
        connection.info[_WROTE] = False

    def executed(connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        if statement.lstrip().upper().startswith(_WRITES):
            connection.info[_WROTE] = True

    def committing(connection: Any) -> None:
        if connection.info.get(_WROTE):
            sabotage.strike()

    listeners = (("begin", began), ("after_cursor_execute", executed), ("commit", committing))
    for name, listener in listeners:
        event.listen(engine, name, listener)
    try:
        with _short_transactions(before_commit=sabotage.strike):
            yield sabotage
    finally:
        for name, listener in listeners:
            event.remove(engine, name, listener)


class _Watched:
    """A connection of SQLite's driver that reports each statement before it runs."""

    def __init__(self, raw: sqlite3.Connection, before: Callable[[str], None]) -> None:
        self._raw = raw
        self._before = before

    def execute(self, sql: str, arguments: Any = ()) -> sqlite3.Cursor:
        self._before(sql)
        return self._raw.execute(sql, arguments)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._raw, name)


@contextmanager
def _short_transactions(
    *,
    before: Callable[[str], None] = lambda _: None,
    before_commit: Callable[[], None] = lambda: None,
) -> Iterator[None]:
    """Watch what `writing.GroupCommitRunner` does past SQLAlchemy, and its events."""
    original = sqlite.Connection.transaction

    @asynccontextmanager
    async def transaction(connection: sqlite.Connection) -> AsyncIterator[Any]:
        async with original(connection) as raw:
            yield _Watched(raw, before)
            before_commit()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sqlite.Connection, "transaction", transaction)
        yield


@contextmanager
def failing_writes(
    database: Database, fault: Fault, *, times: float = float("inf")
) -> Iterator[Sabotage]:
    """The driver raises a fault instead of executing a statement that writes."""
    engine = database.engine.sync_engine

    def act() -> None:
        raise fault()

    sabotage = Sabotage(act, times)

    def execute(_cursor: Any, statement: str, *_rest: Any) -> None:
        if statement.lstrip().upper().startswith(_WRITES):
            sabotage.strike()

    def before(statement: str) -> None:
        execute(None, statement)

    event.listen(engine, "do_execute", execute)
    try:
        with _short_transactions(before=before):
            yield sabotage
    finally:
        event.remove(engine, "do_execute", execute)


def failing_commits(
    database: Database, fault: Fault, *, times: float = float("inf")
) -> AbstractContextManager[Sabotage]:
    """The driver raises a fault instead of committing a transaction that has written."""

    def act() -> None:
        raise OperationalError("COMMIT", None, fault())

    return sabotaged_commits(database, act, times=times)


@contextmanager
def counted_failures(database: Database) -> Iterator[list[BaseException]]:
    """The errors the driver raises meanwhile, failed attempts to connect included."""
    met: list[BaseException] = []

    def note(context: Any) -> None:
        met.append(context.original_exception)

    with ExitStack() as stack:
        for engine in engines(database):
            event.listen(engine, "handle_error", note)
            stack.callback(event.remove, engine, "handle_error", note)
        yield met


@contextmanager
def counted_locks(database: Database) -> Iterator[list[str]]:
    """The statements sent meanwhile that wait for the locks of rows."""
    sent: list[str] = []
    endings = ("FOR UPDATE", "FOR UPDATE OF USERS", "FOR UPDATE OF USERS, SESSIONS")

    def note(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        if statement.rstrip().upper().endswith(endings):
            sent.append(statement)

    event.listen(database.engine.sync_engine, "before_cursor_execute", note)
    try:
        yield sent
    finally:
        event.remove(database.engine.sync_engine, "before_cursor_execute", note)


def sqlite_error(kind: type[sqlite3.Error], text: str, name: str = "") -> sqlite3.Error:
    """What SQLite's driver raises, with the name of the error."""
    error = kind(text)
    error.sqlite_errorname = name
    return error


# What a driver raises when the same transaction may succeed at once, and when the server is gone.
TRANSIENT: dict[str, list[Fault]] = {
    "sqlite": [lambda: sqlite3.OperationalError("database is locked")],
    "mysql": [
        lambda: pymysql.err.OperationalError(1213, "Deadlock found when trying to get lock"),
        lambda: pymysql.err.OperationalError(1205, "Lock wait timeout exceeded"),
        lambda: pymysql.err.OperationalError(1020, "Record has changed since last read"),
    ],
    "postgresql": [
        psycopg.errors.SerializationFailure,
        psycopg.errors.DeadlockDetected,
        psycopg.errors.LockNotAvailable,
    ],
}
GONE: dict[str, Fault] = {
    "sqlite": lambda: sqlite3.OperationalError("disk I/O error"),
    "mysql": lambda: pymysql.err.OperationalError(2013, "Lost connection during query"),
    "postgresql": psycopg.errors.AdminShutdown,
}


# --- What is in the tables -------------------------------------------------------------------


async def dump(database: Database) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of every table, sorted: equal before and after means nothing changed."""
    rows = {}
    async with database.begin(readonly=True) as session:
        for table in Base.metadata.sorted_tables:
            found = (await session.execute(select(table))).all()
            rows[table.name] = sorted((tuple(row) for row in found), key=repr)
    return rows


async def count_mails(database: Database, recipient: str) -> int:
    """How many mails wait for, or went to, an address."""
    async with database.begin(readonly=True) as session:
        statement = select(func.count()).where(Mail.recipient == recipient)
        return (await session.execute(statement)).scalar_one()
