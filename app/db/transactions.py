"""The short write path: transactions that are one plain function, without a session.

Frequent creates (of posts, say) need no unit of work that tracks objects: a function is
given a `Transaction`, runs prepared statements through it, and returns. `TransactionRunner.run`
begins and commits it. On SQLite the function runs in the event loop, where nothing interrupts it,
and the functions that come while one COMMIT waits for the disk share the next.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from contextlib import suppress
from contextvars import Context, copy_context
from dataclasses import dataclass, field
from typing import Any, TypeVar

import sqlalchemy.exc
from sqlalchemy import ColumnElement, Connection, Dialect, inspect, update
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from app.db import sqlite
from app.db.engine import Database, on_cluster
from app.db.queries import PreparedQuery, Rows, utc_timestamp
from app.db.statements import PreparedWrite, insertion_into
from app.db.write_counters import WriteKind, Written, written_by
from app.models.base import Base

T = TypeVar("T")
_MAX_BATCH = 32


class Transaction:
    """The statements of one transaction, which its runner begins and ends."""

    def __init__(
        self,
        dialect: Dialect,
        execute: Callable[[str, Any], Any],
        written: set[Written],
        *,
        is_cluster: bool = False,
    ) -> None:
        self.dialect = dialect
        self._execute = execute
        self._written = written
        self.is_cluster = is_cluster

    @classmethod
    def within(cls, session: Session) -> Transaction:
        """Return the transaction of a session."""
        return cls.on(session.connection(), written_by(session))

    @classmethod
    def on(cls, connection: Connection, written: set[Written]) -> Transaction:
        """Return the transaction of a connection."""
        is_cluster = on_cluster(connection)
        return cls(connection.dialect, connection.exec_driver_sql, written, is_cluster=is_cluster)

    def rows(self, query: PreparedQuery, **parameters: Any) -> Rows:
        """Return what a query finds, with what was written so far, as it goes into JSON."""
        compiled = query.compiled(self.dialect)
        rows = self._execute(compiled.sql, compiled.arguments(parameters)).fetchall()
        return compiled.converted([tuple(row) for row in rows])

    def insert(self, model: type[Base], **values: Any) -> dict[str, Any]:
        """Insert one row, with the defaults of its model; return all its values as they go into
        JSON, with the key the database generated."""
        prepared = insertion_into(model, self.dialect)
        row = prepared.complete(values)
        done = self._execute(prepared.sql, prepared.arguments(row))
        self._written.add((prepared.table, WriteKind.insert))
        for name in prepared.datetime_columns:
            row[name] = utc_timestamp(row[name])
        if prepared.key:
            row[prepared.key] = done.fetchall()[0][0] if prepared.returns_key else done.lastrowid
        return row

    def execute_write(self, write: PreparedWrite, **parameters: Any) -> None:
        """Run a prepared statement that writes."""
        compiled = write.compiled(self.dialect)
        self._execute(compiled.sql, compiled.arguments(parameters))
        self._written.add((compiled.table, write.kind))

    def insert_if_missing(self, model: type[Base], **values: Any) -> None:
        """Insert one row unless its key is taken, also by a concurrent transaction."""
        self._execute("SAVEPOINT missing", ())
        try:
            self.insert(model, **values)
        except IntegrityError:
            self._execute("ROLLBACK TO SAVEPOINT missing", ())
        self._execute("RELEASE SAVEPOINT missing", ())

    def touch(self, model: type[Base], which: ColumnElement[bool]) -> None:
        """On a cluster, write rows so that this transaction conflicts with others that write them
        (`db/guards.py`). Nothing that is shown or remembered changes, and nothing is noted."""
        if not self.is_cluster:
            return
        table: Any = inspect(model).local_table
        values = {"guard": table.c.guard + 1, "updated_at": table.c.updated_at}
        statement = update(table).where(which).values(values)
        literal: Any = {"literal_binds": True}
        self._execute(str(statement.compile(dialect=self.dialect, compile_kwargs=literal)), ())


async def session_transaction(session: AsyncSession, work: Callable[[Transaction], T]) -> T:
    """Run a function in the transaction of a session."""
    return await session.run_sync(lambda inner: work(Transaction.within(inner)))


class TransactionRunner:
    """Runs each function in a transaction of its own."""

    def __init__(self, database: Database) -> None:
        self.database = database

    async def run(self, work: Callable[[Transaction], T]) -> T:
        """Run a function and commit; roll back when it raises.

        The function may run more than once, and must not wait for anything but its transaction.
        """

        def in_transaction(connection: Connection, written: set[Written]) -> T:
            return work(Transaction.on(connection, written))

        return await self.database.transact(in_transaction)

    async def dispose(self) -> None:
        """Close what is open."""


@dataclass(slots=True)
class _Waiting:
    work: Callable[[Transaction], Any]
    context: Context
    done: asyncio.Future[Any]
    result: Any = None
    written: set[Written] = field(default_factory=set)

    def fail(self, error: BaseException) -> None:
        if not self.done.done():
            self.done.set_exception(error)

    def succeed(self) -> None:
        if not self.done.done():
            self.done.set_result(self.result)


class _NeedsRollback(Exception):
    """A function failed after it had written: roll back, and run the others again."""


class GroupCommitRunner(TransactionRunner):
    """Runs the functions that wait at the same time in one transaction; one that fails does not
    affect the others. No caller gets a result before the COMMIT is done.

    Functions rarely fail after they have written. When one does, all are rolled back, and the
    others run again, each inside a savepoint of its own from then on: FTS5 writes out its buffer
    at every savepoint, which would make each post cost 25 µs more (docs/performance.md).
    """

    def __init__(self, database: Database, opener: sqlite.Opener) -> None:
        super().__init__(database)
        self._opener = opener
        self._connection: sqlite.Connection | None = None
        self._waiting: list[_Waiting] = []
        self._committing: asyncio.Task[None] | None = None

    async def run(self, work: Callable[[Transaction], T]) -> T:
        done: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(work, copy_context(), done))
        if self._committing is None or self._committing.done():
            self._committing = asyncio.create_task(self._commit_batches())
        return await done

    async def dispose(self) -> None:
        if self._committing is not None:
            await self._committing
        if self._connection is not None:
            await self._connection.close()
            self._connection = None

    async def _commit_batches(self) -> None:
        is_isolated = False
        while self._waiting:
            batch: list[_Waiting] = []
            try:
                if self._connection is None:
                    self._connection = await self._opener()
                async with self._connection.transaction() as raw:
                    # Those that wait now: later ones are in the next batch.
                    batch.extend(self._waiting[:_MAX_BATCH])
                    del self._waiting[:_MAX_BATCH]
                    batch = self._run_all(raw, batch, isolated=is_isolated)
                is_isolated = False
            except _NeedsRollback:
                self._waiting[:0] = [each for each in batch if not each.done.done()]
                batch, is_isolated = [], True
            except Exception as error:  # noqa: BLE001 passed on to its callers
                wrapped = _as_sqlalchemy(error, "COMMIT")
                if not batch:  # no transaction began: they have waited as long as one does
                    batch, self._waiting = self._waiting, []
                for each in batch:
                    each.fail(wrapped)
            finally:
                # Also of a commit that failed: it may have arrived all the same.
                for each in batch:
                    self.database.write_counters.note(each.written)
            for each in batch:
                each.succeed()

    def _run_all(
        self, raw: sqlite3.Connection, all_: list[_Waiting], *, isolated: bool
    ) -> list[_Waiting]:
        """Run all; return those that wait for the COMMIT now. Raise _NeedsRollback, and any error
        that rolled back the others too."""
        run = self._run_in_savepoint if isolated else self._run_one
        return [each for each in all_ if not each.done.cancelled() and run(raw, each)]

    def _run_in_savepoint(self, raw: sqlite3.Connection, each: _Waiting) -> bool:
        """Run one in a savepoint, rolled back on failure; return whether it succeeded."""
        raw.execute("SAVEPOINT unit")
        try:
            return self._run_one(raw, each)
        except _NeedsRollback:
            raw.execute("ROLLBACK TO unit")
            return False
        finally:
            with suppress(sqlite3.Error):
                raw.execute("RELEASE unit")

    def _run_one(self, raw: sqlite3.Connection, each: _Waiting) -> bool:
        """Run one; return whether it succeeded. Raise _NeedsRollback if it wrote before it
        failed."""

        def execute(sql: str, arguments: Any) -> sqlite3.Cursor:
            try:
                return raw.execute(sql, arguments)
            except sqlite3.Error as error:
                raise _as_sqlalchemy(error, sql) from error

        each.written.clear()
        transaction = Transaction(self.database.engine.dialect, execute, each.written)
        before = raw.total_changes
        try:
            each.result = each.context.run(each.work, transaction)
        except Exception as error:
            if not raw.in_transaction:
                raise
            each.fail(error)
            if raw.total_changes != before:
                raise _NeedsRollback from error
            return False
        return True


def _as_sqlalchemy(error: Exception, sql: str) -> Exception:
    """Return an error of the driver as the SQLAlchemy error that callers handle."""
    if not isinstance(error, sqlite3.Error):
        return error
    kind: type[DBAPIError] = getattr(sqlalchemy.exc, type(error).__name__, DBAPIError)
    return kind(sql, None, error, hide_parameters=True)


def open_transaction_runner(database: Database) -> TransactionRunner:
    """Return the transaction runner for the kind of a database."""
    if database.opener is not None:
        return GroupCommitRunner(database, database.opener)
    return TransactionRunner(database)
