"""Runs migrations against the database of the settings, or on a connection handed over.

One process at a time: replicas that start together wait for the first, and find nothing left to
do. The lock belongs to the connection, so a process that dies gives it back; on a cluster it is a
row, whose holder must show that it is alive.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from typing import Any, Literal

from alembic.autogenerate.api import AutogenContext
from alembic.operations.ops import MigrationScript
from sqlalchemy import Connection, Index, text
from sqlalchemy.exc import DBAPIError, OperationalError

from alembic import context
from app.config import read_settings
from app.db.engine import connect, on_cluster
from app.db.errors import is_transient
from app.db.fitness import VERSIONS, refusal_of
from app.db.migration_lease import BEAT_SECONDS, LEASES, Lease
from app.db.migrations import FTS_PREFIX
from app.db.poolers import POOLED, is_lent
from app.db.sqlite import LOCK_WAIT_SECONDS
from app.models import Base
from app.models.base import UtcDateTime

WAIT_SECONDS = 600
_PAUSE_SECONDS = 0.2
_LOCK = "cimiento.migrations"


def run(connection: Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        version_table=context.config.attributes.get("version_table", VERSIONS),
        compare_type=True,
        # One transaction a migration: on PostgreSQL a failed one leaves nothing.
        transaction_per_migration=True,
        render_as_batch=connection.dialect.name == "sqlite",
        render_item=rendered,
        include_name=lambda name, kind, _: kind != "table" or not is_apart(name),
        include_object=lambda item, _, kind, *__: kind != "index" or is_made(item, connection),
        process_revision_directives=numbered,
    )
    with context.begin_transaction():
        context.run_migrations()


def is_apart(table: str | None) -> bool:
    """Return whether a table is in no model: leases, SQLite's full-text indexes, and how far the
    migrations of each package are."""
    return table == LEASES.name or (table or "").startswith((FTS_PREFIX, VERSIONS))


def is_made(index: Index, connection: Connection) -> bool:
    """Return whether an index is for this kind of database: SQLite has no FULLTEXT indexes."""
    return connection.dialect.name != "sqlite" or not index.dialect_kwargs.get("mysql_prefix")


def rendered(kind: str, item: Any, autogenerate: AutogenContext) -> str | Literal[False]:
    """Render the type of moments in full, all else as Alembic does.

    A migration imports nothing of the app, which goes on changing.
    """
    if kind != "type" or not isinstance(item, UtcDateTime):
        return False
    autogenerate.imports.add("from sqlalchemy.dialects import mysql")
    return "sa.DateTime(timezone=True).with_variant(mysql.DATETIME(fsp=6), 'mysql', 'mariadb')"


def numbered(_: object, __: object, directives: list[MigrationScript]) -> None:
    """Give a new revision the number after the last one, unless `--rev-id` names another."""
    if getattr(context.config.cmd_opts, "rev_id", None) is None:
        head = context.script.get_current_head()
        directives[0].rev_id = f"{int(head or 0) + 1:04}"


@contextmanager
def on_sqlite(connection: Connection) -> Iterator[None]:
    """Hold one transaction for all migrations: the only lock SQLite has.

    A table that ALTER TABLE cannot change is rebuilt and the old one dropped, which deletes its
    rows, and with foreign keys on also what cascades from them. They are checked afterwards.
    """
    # Past SQLAlchemy: inside the transaction it would begin, this has no effect.
    connection.connection.cursor().execute("PRAGMA foreign_keys=OFF")
    wait_for(lambda: began(connection))
    yield
    orphans = connection.exec_driver_sql("PRAGMA foreign_key_check").all()
    if orphans:
        tables = ", ".join(sorted({str(row[0]) for row in orphans}))
        raise SystemExit(f"cimiento: not migrated: rows would refer to nothing in {tables}")
    connection.commit()


def began(connection: Connection) -> bool:
    try:
        connection.begin()
    except OperationalError as error:
        if is_transient(error):
            return False
        raise
    return True


@contextmanager
def on_mariadb(connection: Connection) -> Iterator[None]:
    # Changing a large table takes longer than any statement of a request may; waiting for its
    # lock, meanwhile, holds up every request for that table.
    connection.exec_driver_sql(
        f"SET SESSION lock_wait_timeout={LOCK_WAIT_SECONDS}/*M!100100 , max_statement_time=0 */"
    )
    if on_cluster(connection):
        refuse_unfit(connection)  # the lease has a table
        yield from leasing(connection)
        return
    # Of the server, not of the database; and at most 64 characters long.
    name = sha256(f"{_LOCK}.{connection.engine.url.database}".encode()).hexdigest()
    take = text("SELECT GET_LOCK(:name, 0)").bindparams(name=name)
    yield from holding(connection, take, text("SELECT RELEASE_LOCK(:name)").bindparams(name=name))


@contextmanager
def on_postgresql(connection: Connection) -> Iterator[None]:
    # The lock belongs to a session, which has to be ours alone.
    if is_lent(connection):
        raise SystemExit(f"cimiento: not migrated: {POOLED}")
    connection.exec_driver_sql("SET statement_timeout = 0")
    connection.exec_driver_sql("SET idle_in_transaction_session_timeout = 0")
    key = int.from_bytes(sha256(_LOCK.encode()).digest()[:8], "big", signed=True)
    # Not the function that waits: its snapshot would block CREATE INDEX CONCURRENTLY.
    take = text("SELECT pg_try_advisory_lock(:key)").bindparams(key=key)
    yield from holding(
        connection, take, text("SELECT pg_advisory_unlock(:key)").bindparams(key=key)
    )


def holding(connection: Connection, take: Any, give: Any) -> Iterator[None]:
    """Take a lock of the session, and have no transaction open: each migration has its own."""

    def taken() -> bool:
        won = connection.scalar(take)
        connection.commit()
        return bool(won)

    wait_for(taken)
    try:
        yield
        connection.commit()
    finally:
        connection.rollback()
        connection.execute(give)
        connection.commit()


def leasing(connection: Connection) -> Iterator[None]:
    """Take the lock of a cluster, and show in a thread that this process is alive."""
    lease, ended = Lease(), threading.Event()
    connection.commit()
    lease.prepare(connection)
    wait_for(lambda: lease.take(connection))
    alive = threading.Thread(target=lambda: asyncio.run(show_alive(lease, ended)), daemon=True)
    alive.start()
    try:
        yield
        connection.commit()
    finally:
        ended.set()
        alive.join()
        connection.rollback()
        lease.give(connection)


async def show_alive(lease: Lease, ended: threading.Event) -> None:
    """Count in the row, on a connection of its own, until the migrations have ended."""
    database = connect(read_settings(), direct=True)
    while not await asyncio.to_thread(ended.wait, BEAT_SECONDS):
        # A beat that fails is followed by the next.
        with suppress(DBAPIError, OSError, TimeoutError):
            async with database.engine.connect() as connection:
                if not await connection.run_sync(lease.beat):
                    # Suspended for so long that another process has gone on: not both at once.
                    sys.stderr.write("cimiento: another process migrates now: run this again\n")
                    sys.stderr.flush()
                    os._exit(1)
    await database.dispose()


def wait_for(taken: Callable[[], bool]) -> None:
    """Return when it is our turn; SystemExit after WAIT_SECONDS."""
    deadline = time.monotonic() + WAIT_SECONDS
    is_told = False
    while not taken():
        if time.monotonic() > deadline:
            raise SystemExit("cimiento: not migrated: another process has been at it for too long")
        if not is_told:
            sys.stderr.write("Waiting for another process that migrates this database.\n")
            is_told = True
        time.sleep(_PAUSE_SECONDS)


_IN_TURN = {"sqlite": on_sqlite, "mysql": on_mariadb, "postgresql": on_postgresql}


def run_in_turn(connection: Connection) -> None:
    with _IN_TURN[connection.dialect.name](connection):
        refuse_unfit(connection)
        run(connection)


def refuse_unfit(connection: Connection) -> None:
    """End the process, before it changes anything, if the database is not for us."""
    if reason := refusal_of(connection, frozenset(Base.metadata.tables)):
        raise SystemExit(f"cimiento: not migrated: {reason}")
    # Each migration has a transaction of its own; but on SQLite, where it is the lock as well.
    if connection.dialect.name != "sqlite":
        connection.rollback()


async def connect_and_run() -> None:
    database = connect(read_settings(), direct=True)
    try:
        async with database.engine.connect() as connection:
            await connection.run_sync(run_in_turn)
    finally:
        await database.dispose()


handed_over = context.config.attributes.get("connection")
if handed_over is not None:
    run(handed_over)
else:
    asyncio.run(connect_and_run())
