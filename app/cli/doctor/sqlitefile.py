"""SQLite: the file, its folder, and the settings of every connection."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from app.cli.doctor.findings import Finding, Findings, failure, judged
from app.config import Settings
from app.db.engine import Database

_REMEDIES = {
    "journal_mode": "Readers would wait for writers; a folder on a network cannot have it: move it"
    " to a local disk.",
    "synchronous": "What was acknowledged may be gone after a power cut: take pragmas out of"
    " DATABASE_URL.",
    "foreign_keys": "Rows could point nowhere: install a SQLite that was built with foreign keys.",
}
_WANTED = {"journal_mode": "wal", "synchronous": "2", "foreign_keys": "1"}


def problem(settings: Settings) -> Finding | None:
    """Return why there is no database, without creating one; None for other databases."""
    url = settings.url
    if url.get_backend_name() != "sqlite":
        return None
    if url.database in {None, "", ":memory:"}:
        return failure("database", "it is kept in memory alone", "Name a file in DATABASE_URL.")
    path = Path(str(url.database))
    if not path.is_file():
        return failure("database", f"there is no file {path} yet", "Run scripts/migrate.")
    return None


async def check(database: Database, settings: Settings) -> Findings:
    """Check the settings that the app's own connections see."""
    async with database.probing.connect() as connection:
        found = {}
        for name in _WANTED:
            rows = await connection.exec_driver_sql(f"PRAGMA {name}")
            found[name] = str(rows.scalar_one())
    return [*_judged(found), _folder(Path(str(settings.url.database)))]


def _judged(found: dict[str, str]) -> Iterator[Finding]:
    for name, wanted in _WANTED.items():
        is_good = found[name] == wanted
        yield judged("sqlite", is_good, f"{name} is {found[name]}", _REMEDIES[name])


def _folder(path: Path) -> Finding:
    """Check file and folder: SQLite writes two more files beside the one."""
    return judged(
        "sqlite",
        os.access(path, os.W_OK) and _takes_files(path.parent),
        f"its file is {path}",
        f"{path} and its folder have to be writable for the user who runs the app.",
    )


def _takes_files(folder: Path) -> bool:
    try:
        tempfile.TemporaryFile(dir=folder).close()
    except OSError:
        return False
    return True
