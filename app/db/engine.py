"""The database: one engine, one commit, three dialects.

`Database` holds the commits of the code base. A request gets its session from
`web/dependencies.py`; scripts and background work call `begin()` themselves; `db/transactions.py`
runs what needs no session.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from sqlalchemy import URL, Connection, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.util import greenlet_spawn

from app.config import Pooler, Settings
from app.db import galera, sqlite
from app.db.errors import is_transient
from app.db.pings import ping_before_use, unpinged
from app.db.retries import RETRIES, pause
from app.db.sqlite import LOCK_WAIT_SECONDS
from app.db.tls import tls_of
from app.db.write_counters import WRITTEN, WriteCounters, Written

T = TypeVar("T")
POOL_TIMEOUT_SECONDS = 3
POOL_RECYCLE_SECONDS = 1800
STATEMENT_SECONDS = 10
# Idle in a transaction: one that holds its locks so long has been abandoned.
IDLE_SECONDS = 60
_READONLY = "cimiento_readonly"
_CLUSTER = "cimiento_cluster"


class Database:
    """Sessions on one engine, for reading and for writing.

    `expire_on_commit` is off: what a route returns is serialised from what was flushed.
    """

    def __init__(
        self,
        engine: AsyncEngine,
        reading: AsyncEngine,
        probing: AsyncEngine,
        opener: sqlite.Opener | None = None,
        closing: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self.engine = engine
        self.reading = reading
        self.probing = probing  # one connection, to look whether the database answers
        self.opener = opener  # of SQLite's connections
        self._closing = closing  # what belongs to none of the engines
        self.write_counters = WriteCounters()
        self._is_cluster = False
        if engine.dialect.name == "mysql":
            event.listen(engine.sync_engine, "connect", self._note_cluster)
        reader = engine.execution_options(**{_READONLY: True})
        self._writing = async_sessionmaker(engine, expire_on_commit=False)
        self._reading = async_sessionmaker(reader, expire_on_commit=False)

    @property
    def dialect(self) -> str:
        """`sqlite`, `mysql` (MariaDB too) or `postgresql`."""
        return self.engine.dialect.name

    @property
    def is_cluster(self) -> bool:
        """Whether the server is a node of a Galera cluster, as the newest connection found it.

        False until the write engine has connected; `on_cluster` says it of one connection.
        """
        return self._is_cluster

    def _note_cluster(self, connection: Any, record: Any) -> None:
        self._is_cluster = galera.is_node(connection)
        record.info[_CLUSTER] = self._is_cluster
        if self._is_cluster:
            galera.wait_for_others(connection)

    @asynccontextmanager
    async def begin(self, *, readonly: bool = False) -> AsyncIterator[AsyncSession]:
        """Open a session whose transaction commits at the end of the block, or is rolled back.

        No connection is taken before the first statement, so what comes before it (hashing a
        password) holds no lock. Read-only transactions never wait for writers on SQLite.
        A cancelled task commits nothing, even where a library swallowed the cancellation.
        """
        sessions = self._reading if readonly else self._writing
        written: set[Written] = set()
        try:
            async with sessions.begin() as session:
                session.info[WRITTEN] = written
                yield session
                _refuse_if_cancelled()
        finally:
            # Also of a commit that failed: it may have arrived all the same.
            self.write_counters.note(written)

    async def transact(self, work: Callable[[Connection, set[Written]], T]) -> T:
        """Run a plain function as a transaction, without a session; it records what it writes.

        Commit when the function returns, or roll back. Call it again, once, if the connection
        turns out to be gone before the COMMIT.
        """
        written: set[Written] = set()

        def in_transaction() -> T:
            with unpinged(), self.engine.sync_engine.begin() as connection:
                done = work(connection, written)
                _refuse_if_cancelled()
            return done

        try:
            try:
                return await greenlet_spawn(in_transaction)
            except DBAPIError as error:
                # A COMMIT has no statement here, and may have arrived.
                if not error.connection_invalidated or error.statement is None:
                    raise
                written.clear()
            return await greenlet_spawn(in_transaction)
        finally:
            self.write_counters.note(written)

    async def run(self, work: Callable[[AsyncSession], Awaitable[T]]) -> T:
        """Do some work in a transaction of its own, and again after a deadlock and the like.

        For what no request's middleware runs again: commands and background work.
        """
        attempt = 0
        while True:
            try:
                async with self.begin() as session:
                    return await work(session)
            except Exception as error:
                if attempt == RETRIES or not is_transient(error):
                    raise
            await pause(attempt)
            attempt += 1

    async def dispose(self) -> None:
        """Close every pooled connection; the engines are of no use afterwards."""
        await self.engine.dispose()
        await self.reading.dispose()
        await self.probing.dispose()
        if self._closing is not None:
            await self._closing()


def on_cluster(connection: Connection) -> bool:
    """Return whether a connection of the write engine is one to a node of a Galera cluster."""
    return bool(connection.info.get(_CLUSTER, False))


def _refuse_if_cancelled() -> None:
    # `wait_for` before Python 3.12 swallows it: a request that was answered 503 because time was
    # up must not be committed.
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


def connect(settings: Settings, *, direct: bool = False) -> Database:
    """Return the database of the settings; `direct` past a pooler, for what is bound to a session.

    Open no connection before the first use.
    """
    url = settings.direct_url if direct else settings.url
    if url.get_backend_name() == "sqlite":
        settings.data_dir.mkdir(parents=True, exist_ok=True)
        opener = sqlite.Opener(url)
        engine = _engine(settings, url, async_creator=opener)
        _listen_on_sqlite(engine)
        reading = engine.execution_options(**{_READONLY: True})
        probing = _engine(settings, url, async_creator=opener, pool_size=1)
        return Database(engine, reading, probing, opener)
    opened = _driver(settings, url)
    return Database(
        _engine(settings, url, isolation_level="READ COMMITTED", pings=True, connect_args=opened),
        # What only reads needs no transaction, and so no ROLLBACK after it: a round trip less.
        # Nor a ping before it: `db/queries.py` replaces a connection that is gone.
        _engine(
            *(settings, url),
            isolation_level="AUTOCOMMIT",
            pool_reset_on_return=None,
            connect_args=opened,
        ),
        _engine(
            *(settings, url),
            isolation_level="AUTOCOMMIT",
            pings=True,
            pool_size=1,
            connect_args=opened,
        ),
        closing=getattr(opened["async_creator_fn"], "dispose", None),
    )


def _engine(settings: Settings, url: URL, *, pings: bool = False, **options: Any) -> AsyncEngine:
    if url.get_backend_name() == "mysql":
        url = url.update_query_dict({"charset": "utf8mb4"})
    engine = create_async_engine(
        url,
        # Statements are logged and raised without their parameters: those hold hashes.
        hide_parameters=True,
        max_overflow=0,
        pool_timeout=POOL_TIMEOUT_SECONDS,
        pool_recycle=POOL_RECYCLE_SECONDS,
        **{"pool_size": settings.database_pool_size, **options},
    )
    if pings:
        ping_before_use(engine)
    return engine


def _driver(settings: Settings, url: URL) -> dict[str, Any]:
    """Return the arguments of a server's connections. Import only the driver in use."""
    found: dict[str, Any] = {}
    if "connect_timeout" not in url.query:
        found["connect_timeout"] = POOL_TIMEOUT_SECONDS
    if url.get_backend_name() == "mysql":
        from app.db import mariadb  # noqa: PLC0415 see above

        return found | {
            "async_creator_fn": mariadb.Opener(tls_of(url)),
            "init_command": _MARIADB_SESSION,
        }
    from app.db import postgresql  # noqa: PLC0415 see above

    pooler = Pooler.none if url != settings.url else settings.database_pooler
    return found | {"async_creator_fn": postgresql.Opener(_POSTGRESQL_SESSION, pooler)}


_MARIADB_SESSION = (
    "SET SESSION sql_mode='STRICT_ALL_TABLES,NO_ZERO_DATE,NO_ZERO_IN_DATE,"
    "ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION', time_zone='+00:00', "
    # MySQL 8 cuts the result of GROUP_CONCAT at 1 KiB.
    f"innodb_lock_wait_timeout={LOCK_WAIT_SECONDS}, group_concat_max_len=1048576"
    # Each server reads its own comment: MariaDB counts seconds, MySQL 8 milliseconds.
    f"/*M!100100 , max_statement_time={STATEMENT_SECONDS} */"
    f"/*!80000 , max_execution_time={STATEMENT_SECONDS * 1000} */"
)
# What the URL's `options` say of the same counts before it.
_POSTGRESQL_SESSION = {
    "timezone": "UTC",
    "statement_timeout": f"{STATEMENT_SECONDS}s",
    "lock_timeout": f"{LOCK_WAIT_SECONDS}s",
    "idle_in_transaction_session_timeout": f"{IDLE_SECONDS}s",
}


def _listen_on_sqlite(engine: AsyncEngine) -> None:
    @event.listens_for(engine.sync_engine, "begin")
    def begin(connection: Any) -> None:
        # A deferred transaction that turns writer fails with "database is locked" under load.
        readonly = connection.get_execution_options().get(_READONLY)
        connection.exec_driver_sql("BEGIN" if readonly else "BEGIN IMMEDIATE")
