"""Backups: a whole database as one file, in the form that the database's own tools read.

    SQLite          a database file, as VACUUM INTO makes it
    MariaDB, MySQL  SQL, by mariadb-dump (or mysqldump)
    PostgreSQL      pg_dump's custom format

Each is one snapshot, taken while others write, with a checksum behind it. Secrets and key pairs are
not in it.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from sqlalchemy import Connection, inspect, text
from sqlalchemy.engine import URL

from app.cli.backup.contents import BackupError, Contents, refuse_foreign
from app.cli.backup.files import Sqlite
from app.cli.backup.mariadb import MariaDb
from app.cli.backup.postgresql import PostgreSql
from app.cli.backup.seals import refuse_damaged, seal
from app.db.engine import Database
from app.db.migrations import Revision, revision_of
from app.db.poolers import POOLED, is_lent

__all__ = ["BackupError", "back_up", "restore"]


class Store(Protocol):
    """What each kind of database does in its own way; raises BackupError."""

    def dump(self, target: Path, tables: Sequence[str] = ()) -> None:
        """Write a snapshot into an empty file. `tables` are all there are."""

    def check(self, source: Path) -> Contents:
        """Return what a file holds; refuse one that is no whole backup of such a database."""

    def load(self, source: Path, *, dropping: Sequence[str] = ()) -> None:
        """Drop these tables, all there are, and fill the database. Drops nothing before all that
        can be looked at was: that the tools are there, and the database lets them in."""


def store_of(url: URL) -> Store:
    """Return what backs up the database of a URL."""
    kinds: dict[str, type[Sqlite | MariaDb | PostgreSql]] = {
        "sqlite": Sqlite,
        "mysql": MariaDb,
        "postgresql": PostgreSql,
    }
    return kinds[url.get_backend_name()](url)


async def back_up(database: Database, target: Path) -> Revision:
    """Write the database into a new file (mode 0600) that appears only when it is whole."""
    store = store_of(database.engine.url)
    await _refuse_lent(database)
    with _appearing(target) as partial:
        # To look into a file of SQLite that is not there would make it.
        tables = [] if database.dialect == "sqlite" else await _tables(database)
        await asyncio.to_thread(store.dump, partial, tables)
        revision = await revision_of(database)
        if revision.found is None:
            raise BackupError("the database was never migrated: there is nothing to back up")
        await asyncio.to_thread(_look_through, store, partial)
        await asyncio.to_thread(seal, partial)
    return revision


async def restore(database: Database, source: Path, *, force: bool = False) -> Revision:
    """Fill a database from a backup. One with tables is refused, or with `force` replaced.

    Nothing is dropped for a file that is damaged or not ours.
    """
    store = store_of(database.engine.url)
    await asyncio.to_thread(_look_through, store, source)
    await _refuse_lent(database)
    found = await _tables(database)
    if found and not force:
        raise BackupError(f"the database has tables already ({len(found)}): --force drops them")
    # A connection of our own would be in the way as well.
    await database.engine.dispose()
    await asyncio.to_thread(store.load, source, dropping=found)
    return await revision_of(database)


def _look_through(store: Store, source: Path) -> None:
    """Raise BackupError unless this is a whole backup of Cimiento for such a database."""
    if not source.is_file():
        raise BackupError(f"{source} is no file" if source.exists() else f"there is no {source}")
    refuse_damaged(source)
    refuse_foreign(source, store.check(source))


async def _refuse_lent(database: Database) -> None:
    """Raise BackupError behind a pooler: what the tools set for themselves would stay set for
    the next client of the session."""
    if database.dialect != "postgresql":
        return
    async with database.engine.connect() as connection:
        is_ours = not await connection.run_sync(is_lent)
    if not is_ours:
        raise BackupError(POOLED)


async def _tables(database: Database) -> list[str]:
    """Return the tables of the database; of PostgreSQL those of the schema that is backed up, and
    not of all that are on its search path."""

    def names(connection: Connection) -> list[str]:
        schema = None
        if connection.dialect.name == "postgresql":
            schema = connection.scalar(text("SELECT current_schema()"))
        return inspect(connection).get_table_names(schema=schema)

    async with database.engine.connect() as connection:
        return await connection.run_sync(names)


@contextmanager
def _appearing(target: Path) -> Iterator[Path]:
    """Yield an empty file beside the target, for its owner alone; rename it at the end."""
    if target.exists():
        raise BackupError(f"{target} exists already")
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    partial = Path(name)
    try:
        yield partial
        # Both reach the disk before the backup counts as done.
        os.fsync(handle)
        partial.rename(target)
        _sync_directory(target.parent)
    finally:
        os.close(handle)
        partial.unlink(missing_ok=True)


def _sync_directory(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
