"""The read path: selects prepared once, run without a session, as values that go into JSON.

What a request reads it does not change, so it needs no unit of work: a `PreparedQuery` is compiled
once for the dialect, and a `QueryRunner` runs it with the parameters of the request. On SQLite that
happens in the event loop (a look-up takes microseconds, a hop to a thread takes many of them),
on servers over connections of their own that are never inside a transaction.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from threading import Event
from typing import Any, TypeVar

from sqlalchemy import BindParameter, Dialect, Select, Table
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.sql import visitors
from sqlalchemy.types import TypeEngine
from sqlalchemy.util import greenlet_spawn

from app.core.threads import background_threads
from app.db.engine import STATEMENT_SECONDS, Database
from app.db.parameters import Convert, Parameter, arguments_of, parameter
from app.db.sqlite import open_raw
from app.db.write_counters import WriteKind
from app.models.base import UtcDateTime, hiding_deleted

AnySelect = Select[*tuple[Any, ...]]
E = TypeVar("E")
Rows = Sequence[tuple[Any, ...]]
# How long a statement may hold the event loop up, and for how long one that took longer is
# run in a thread without being tried.
LOOP_SECONDS = 0.005
SLOW_SECONDS = 10.0
_THREADS = 4
_MAX_SLOW = 100
_STEPS = 2_000  # of SQLite's machine, between two looks at the clock: about 20 µs


class PreparedQuery:
    """A select with bind parameters. Rows in the trash are excluded unless `include_deleted`.

    Every parameter without a value of its own must be given each time it runs.
    `is_expensive`: on SQLite, a slow run goes to low-priority threads.
    """

    def __init__(
        self, statement: AnySelect, *, include_deleted: bool = False, is_expensive: bool = False
    ) -> None:
        self.statement = statement if include_deleted else hiding_deleted(statement)
        self.is_expensive = is_expensive
        self._compiled: dict[str, Compiled] = {}

    def compiled(self, dialect: Dialect) -> Compiled:
        """Return the statement as the driver takes it."""
        compiled = self._compiled.get(dialect.name)
        if compiled is None:
            compiled = self._compiled[dialect.name] = Compiled.of(self, dialect)
        return compiled


@dataclass(frozen=True, slots=True, eq=False)
class Compiled:
    """A query as one driver takes it."""

    sql: str
    positional: bool
    parameters: tuple[Parameter, ...]
    converters: tuple[tuple[int, Convert], ...]
    tables: frozenset[str]
    is_expensive: bool = False

    @classmethod
    def of(cls, query: PreparedQuery, dialect: Dialect) -> Compiled:
        statement = query.statement
        named = [each.key for each in _all(BindParameter, statement) if not each.unique]
        compiled: Any = statement.params(dict.fromkeys(named)).compile(
            dialect=dialect,
            # What only goes into a statement as text (a separator, say) is put there at once.
            compile_kwargs={"render_postcompile": True},
        )
        names = compiled.positiontup if compiled.positional else list(compiled.binds)
        types = [column.type for column in statement.selected_columns]
        converters = [(index, _json_converter(type_, dialect)) for index, type_ in enumerate(types)]
        return cls(
            sql=str(compiled),
            positional=compiled.positional,
            parameters=tuple(parameter(name, compiled.binds[name], dialect) for name in names),
            converters=tuple((index, convert) for index, convert in converters if convert),
            tables=frozenset(table.name for table in _all(Table, statement)),
            is_expensive=query.is_expensive,
        )

    def arguments(self, parameters: Mapping[str, Any]) -> Any:
        """Return what the driver takes: a tuple, or a mapping if it takes names. Raise KeyError
        for a parameter that was not given."""
        return arguments_of(self.parameters, parameters, positional=self.positional)

    def converted(self, rows: Rows) -> Rows:
        """Return the rows with each value as it goes into JSON; by column, which is quicker."""
        if not rows or not self.converters:
            return rows
        columns: list[Iterable[Any]] = list(zip(*rows, strict=True))
        for index, convert in self.converters:
            columns[index] = [convert(value) for value in columns[index]]
        return list(zip(*columns, strict=True))


def _all(kind: type[E], statement: AnySelect) -> Iterator[E]:
    """Yield everything of a kind in a statement."""
    for element in visitors.iterate(statement):
        if isinstance(element, kind):
            yield element


def _json_converter(type_: TypeEngine[Any], dialect: Dialect) -> Convert | None:
    """Return what converts a column's values to what goes into JSON."""
    if isinstance(type_, UtcDateTime):
        return _utc_timestamp_of_text if dialect.name == "sqlite" else utc_timestamp
    return type_.dialect_impl(dialect).result_processor(dialect, None)


def _utc_timestamp_of_text(value: str | None) -> str | None:
    return value and value.replace(" ", "T") + "Z"


def utc_timestamp(value: datetime | None) -> str | None:
    """Return a date and time as it goes into JSON."""
    if value is None:
        return None
    # Cut: an offset may follow, and it is that of UTC.
    return value.isoformat(timespec="microseconds")[:26] + "Z"


class QueryRunner:
    """Runs prepared queries on connections of a pool, outside any transaction."""

    def __init__(self, database: Database) -> None:
        self.engine = database.reading
        self.write_counters = database.write_counters

    async def rows(self, query: PreparedQuery, parameters: Mapping[str, Any]) -> Rows:
        """Return what a query finds; raise what a session would.

        After any error of the first, direct try, run it again through SQLAlchemy: reading twice
        is harmless, and SQLAlchemy classifies errors and drops connections that are gone.
        """
        compiled = query.compiled(self.engine.dialect)
        arguments = compiled.arguments(parameters)
        rows = await self._run_on_driver(compiled, arguments)
        if rows is None:
            rows = await self._run_through_sqlalchemy(compiled, arguments)
        return compiled.converted(rows)

    async def _run_on_driver(self, compiled: Compiled, arguments: Any) -> Rows | None:
        """Return the rows without SQLAlchemy's connection and result; None if that failed."""
        try:
            return await greenlet_spawn(self._fetch, compiled.sql, arguments)
        except PoolTimeout:
            raise
        except Exception:  # noqa: BLE001 the second try tells
            return None

    def _fetch(self, sql: str, arguments: Any) -> Rows:
        connection = self.engine.sync_engine.raw_connection()
        try:
            cursor = connection.cursor()
            cursor.execute(sql, arguments)
            rows = cursor.fetchall()
            cursor.close()
        except BaseException:
            connection.invalidate()
            raise
        finally:
            connection.close()
        return rows

    async def _run_through_sqlalchemy(self, compiled: Compiled, arguments: Any) -> Rows:
        try:
            return await self._executed(compiled, arguments)
        except DBAPIError as error:
            if not error.connection_invalidated:
                raise
        return await self._executed(compiled, arguments)

    async def _executed(self, compiled: Compiled, arguments: Any) -> Rows:
        async with self.engine.connect() as connection:
            result = await connection.exec_driver_sql(compiled.sql, arguments)
            return [tuple(row) for row in result.all()]

    def arguments(self, query: PreparedQuery, parameters: Mapping[str, Any]) -> Hashable:
        """Return the arguments of a query, hashable: equal for equal parameters."""
        arguments = query.compiled(self.engine.dialect).arguments(parameters)
        return tuple(arguments.values()) if isinstance(arguments, dict) else arguments

    def version(self, query: PreparedQuery) -> int:
        """Return a number that grows with each write of this process to what a query reads."""
        tables = query.compiled(self.engine.dialect).tables
        return self.write_counters.count_of(
            *[(name, kind) for name in tables for kind in WriteKind]
        )

    async def dispose(self) -> None:
        """Close what is open."""
        await self.engine.dispose()


class SqliteQueryRunner(QueryRunner):
    """Runs queries in the event loop; one that takes longer than LOOP_SECONDS starts anew in a
    thread, where it is from then on run at once."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self._connection: sqlite3.Connection | None = None
        self._until = 0.0
        self._slow: dict[Compiled, float] = {}
        # Its own: searches must not keep commits from a thread, nor requests from a core.
        self._threads = _threads()

    async def _run_on_driver(self, compiled: Compiled, arguments: Any) -> Rows | None:
        now = time.monotonic()
        if self._slow.get(compiled, 0) < now:
            self._until = now + LOOP_SECONDS
            with suppress(sqlite3.Error):
                return self._opened().execute(compiled.sql, arguments).fetchall()
            if not self._is_late():
                return None
            if len(self._slow) >= _MAX_SLOW:
                self._slow.clear()
            self._slow[compiled] = now + SLOW_SECONDS
        left, until = Event(), now + STATEMENT_SECONDS
        work = partial(
            self._run_in_thread,
            compiled.sql,
            arguments,
            lambda: left.is_set() or time.monotonic() > until,
        )
        try:
            threads = self._threads[compiled.is_expensive]
            return await asyncio.get_running_loop().run_in_executor(threads, work)
        finally:
            left.set()  # a cancelled request waits no more, and its thread works no more

    def _run_in_thread(self, sql: str, arguments: Any, is_over: Callable[[], bool]) -> Rows | None:
        with suppress(sqlite3.Error), closing(open_raw(self.engine.url)) as connection:
            connection.set_progress_handler(is_over, _STEPS)
            return connection.execute(sql, arguments).fetchall()
        if is_over():
            raise TimeoutError
        return None

    async def dispose(self) -> None:
        for threads in self._threads.values():
            threads.shutdown(wait=False)
        self._threads = _threads()
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _opened(self) -> sqlite3.Connection:
        if self._connection is None:
            self._connection = open_raw(self.engine.url, busy_seconds=0)
            self._connection.execute("PRAGMA query_only=ON")
            self._connection.set_progress_handler(self._is_late, _STEPS)
        return self._connection

    def _is_late(self) -> bool:
        return time.monotonic() > self._until


def _threads() -> dict[bool, Executor]:
    """Return the threads for what takes long, and those for what is expensive."""
    return {
        False: ThreadPoolExecutor(_THREADS, "sqlite-reader"),
        True: background_threads(_THREADS, "sqlite-search"),
    }


def open_query_runner(database: Database) -> QueryRunner:
    """Return the query runner for the kind of a database."""
    if database.dialect == "sqlite":
        return SqliteQueryRunner(database)
    return QueryRunner(database)
