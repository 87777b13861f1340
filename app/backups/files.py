"""Backups of SQLite: by the library itself, without a tool."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from sqlalchemy.engine import URL

from app.backups.clients import BackupError
from app.sqlite import open_raw

_MAGIC = b"SQLite format 3\0"
_BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
_IN_USE = "the database is in use: stop the servers first"


class Sqlite:
    """The file of a `sqlite://` URL."""

    def __init__(self, url: URL) -> None:
        self._url = url
        self._path = Path(url.database or ":memory:")

    def dump(self, target: Path) -> None:
        """A snapshot; writers go on meanwhile. What was deleted for good is not in it."""
        # Opening it would make it.
        if not self._path.is_file():
            raise BackupError(f"there is no database at {self._path}")
        with _explained(), closing(open_raw(self._url)) as connection:
            connection.execute("VACUUM INTO ?", [str(target)])
        self.check(target)

    def check(self, source: Path) -> None:
        with source.open("rb") as file:
            if file.read(len(_MAGIC)) != _MAGIC:
                raise BackupError(f"{source} is no backup of SQLite")
        with _explained(), closing(_read_only(source)) as connection:
            found = connection.execute("PRAGMA integrity_check(1)").fetchone()
            orphans = connection.execute("PRAGMA foreign_key_check").fetchall()
        if found != ("ok",) or orphans:
            raise BackupError(f"{source} is damaged")

    def load(self, source: Path, *, dropping: Sequence[str] = ()) -> None:  # noqa: ARG002
        """One in the place of the other, in one transaction: what was there stays when it fails.

        Refused while anybody has the file open: a server would go on acknowledging writes that
        are replaced, and show what it remembers of rows that are gone.
        """
        with (
            _explained(),
            closing(_read_only(source)) as connection,
            closing(open_raw(self._url, busy_seconds=0, exclusive=True)) as target,
        ):
            # Nobody else gets in from here on, until it is closed.
            target.execute("BEGIN EXCLUSIVE")
            target.execute("COMMIT")
            connection.backup(target, progress=_refuse_to_wait)


def _read_only(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)


def _refuse_to_wait(status: int, _remaining: int, _total: int) -> None:
    # The library's own would try for ever.
    if status in _BUSY:
        raise BackupError(_IN_USE)


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & 0xFF in _BUSY:
            raise BackupError(_IN_USE) from error
        raise BackupError(f"SQLite failed: {error}") from error
    except sqlite3.Error as error:
        raise BackupError(f"SQLite failed: {error}") from error
