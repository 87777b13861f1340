"""Backups of SQLite: by the library itself, without a tool."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import closing, contextmanager
from pathlib import Path

from sqlalchemy.engine import URL

from app.cli.backup.contents import BackupError, Contents
from app.db.sqlite import open_raw
from app.models.search import fts_statements

_MAGIC = b"SQLite format 3\0"
_BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
_IN_USE = "the database is in use: stop the servers first"
# What does something by itself when rows are read or written. Of ours, the full-text indexes do:
# they are left out of backups, and built again.
_ACTIVE = (
    "SELECT type, name FROM sqlite_master"
    " WHERE type IN ('trigger', 'view') OR sql LIKE 'CREATE VIRTUAL%'"
)
_TABLES = "SELECT name FROM sqlite_master WHERE type = 'table'"
# With those that are computed, which table_info leaves out.
_COLUMNS = (
    "SELECT t.name, c.name FROM sqlite_master AS t JOIN pragma_table_xinfo(t.name) AS c"
    " WHERE t.type = 'table'"
)


class Sqlite:
    """The file of a `sqlite://` URL."""

    def __init__(self, url: URL) -> None:
        self._url = url
        self._path = Path(url.database or ":memory:")

    def dump(self, target: Path, tables: Sequence[str] = ()) -> None:  # noqa: ARG002 the protocol's
        """Write a snapshot; writers go on meanwhile. Deleted pages are not in it."""
        # Opening it would make it.
        if not self._path.is_file():
            raise BackupError(f"there is no database at {self._path}")
        with _explained(), closing(open_raw(self._url)) as connection:
            connection.execute("VACUUM INTO ?", [str(target)])
        with _explained(), closing(sqlite3.connect(target, isolation_level=None)) as copy:
            for kind, name in copy.execute(_ACTIVE).fetchall():
                quoted = '"' + name.replace('"', '""') + '"'
                copy.execute(f"DROP {'TABLE' if kind == 'table' else kind} IF EXISTS {quoted}")

    def check(self, source: Path) -> Contents:
        with source.open("rb") as file:
            if file.read(len(_MAGIC)) != _MAGIC:
                raise BackupError(f"{source} is no backup of SQLite")
        try:
            with closing(_read_only(source)) as connection:
                return _contents(source, connection)
        except sqlite3.DatabaseError as error:
            if _is_busy(error):
                raise BackupError(_IN_USE) from error
            raise BackupError(f"{source} is damaged: {error}") from error

    def load(self, source: Path, *, dropping: Sequence[str] = ()) -> None:  # noqa: ARG002 the protocol's
        """Replace the database in one transaction: what was there stays when it fails.

        Refused while another process has the file open: a server would go on acknowledging writes
        that are replaced, and show what it remembers of rows that are gone.
        """
        with (
            _explained(),
            closing(_read_only(source)) as connection,
            closing(open_raw(self._url, busy_seconds=0, exclusive=True)) as target,
        ):
            # No other connection gets in from here on, until this one is closed.
            target.execute("BEGIN EXCLUSIVE")
            target.execute("COMMIT")
            connection.backup(target, progress=_refuse_to_wait)
            tables = [name for (name,) in target.execute(_TABLES)]
            for statement in fts_statements(tables):
                target.execute(statement)


def _contents(source: Path, connection: sqlite3.Connection) -> Contents:
    """Return what is in a file; refuse one that is damaged or has triggers or views."""
    # The file's own schema gets no functions to call.
    connection.execute("PRAGMA trusted_schema=OFF")
    if active := connection.execute(_ACTIVE).fetchall():
        kind, name = active[0]
        raise BackupError(f"{source} is no backup of Cimiento: it has a {kind} {name}")
    found = connection.execute("PRAGMA integrity_check(1)").fetchone()
    orphans = connection.execute("PRAGMA foreign_key_check").fetchall()
    # What is missing of the last page would be read as zeros.
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    (size,) = connection.execute("PRAGMA page_size").fetchone()
    is_cut_off = source.stat().st_size < pages * size
    if found != ("ok",) or orphans or is_cut_off:
        raise BackupError(f"{source} is damaged")
    tables: dict[str, set[str]] = {}
    for table, column in connection.execute(_COLUMNS):
        tables.setdefault(table, set()).add(column)
    return Contents(tables, _revision(connection, tables))


def _revision(connection: sqlite3.Connection, tables: Mapping[str, Set[str]]) -> str | None:
    if "version_num" not in tables.get("alembic_version", ()):
        return None
    rows = connection.execute("SELECT version_num FROM alembic_version LIMIT 2").fetchall()
    return str(rows[0][0]) if len(rows) == 1 else None


def _read_only(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)


def _is_busy(error: sqlite3.Error) -> bool:
    return error.sqlite_errorcode & 0xFF in _BUSY


def _refuse_to_wait(status: int, _remaining: int, _total: int) -> None:
    # The library's own would try for ever.
    if status in _BUSY:
        raise BackupError(_IN_USE)


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        if _is_busy(error):
            raise BackupError(_IN_USE) from error
        raise BackupError(f"SQLite failed: {error}") from error
