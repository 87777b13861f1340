"""Migrations: the revision a database is at, and the last one this code knows."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, create_engine, inspect

from app.db.engine import Database

if TYPE_CHECKING:
    from alembic.config import Config

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Location:
    """A directory of migrations, and the table that says how far a database has come in it.

    A package outside `app/` has one beside ours, with a table of its own: its revisions are
    numbered for themselves, and ours may go on.
    """

    directory: Path
    version_table: str


# SQLite's full-text indexes, and their tables: derived from others, in no backup.
FTS_PREFIX = "fts_"


@dataclass(frozen=True)
class Revision:
    """`found` is None where nothing was ever migrated. Revisions are numbers of four digits."""

    found: str | None
    head: str

    @property
    def is_older(self) -> bool:
        """Whether migrations are yet to run."""
        return self.found is None or self.found < self.head

    @property
    def is_newer(self) -> bool:
        """Whether a newer version has migrated, which this one works with: migrations only add."""
        return self.found is not None and self.found > self.head


def config(location: Location | None = None) -> Config:
    """Return the configuration for Alembic's commands, on our migrations or another package's."""
    # Imported here and below: a server that only serves need not carry its 11 MiB.
    from alembic.config import Config  # noqa: PLC0415 see above

    found = Config(ROOT / "alembic.ini")
    # In the file, `%` in the path of the checkout would begin a name.
    found.set_main_option("script_location", str(ROOT / "alembic").replace("%", "%%"))
    if location is not None:
        # A path may hold what would separate it from others, but no line break.
        found.set_main_option("path_separator", "newline")
        found.set_main_option("version_locations", str(location.directory).replace("%", "%%"))
        found.attributes["version_table"] = location.version_table
    return found


@cache
def head() -> str:
    """Return the last revision that this code knows, by the names of the files alone."""
    return max(file.name[:4] for file in (ROOT / "alembic" / "versions").glob("[0-9]*.py"))


def revisions() -> frozenset[str]:
    """Return every revision that this code knows."""
    from alembic.script import ScriptDirectory  # noqa: PLC0415 see above

    scripts = ScriptDirectory.from_config(config())
    return frozenset(script.revision for script in scripts.walk_revisions())


def columns_at(revision: str) -> dict[str, frozenset[str]]:
    """Return the columns of each table at a revision: of a database in memory, migrated to it.

    Tables and columns have the same names on every kind of database.
    """
    from alembic import command  # noqa: PLC0415 see above

    ours, engine = config(), create_engine("sqlite://")
    with engine.connect() as connection:
        ours.attributes["connection"] = connection
        command.upgrade(ours, revision)
        found = inspect(connection)
        columns = {
            table: frozenset(column["name"] for column in found.get_columns(table))
            for table in found.get_table_names()
            if not table.startswith(FTS_PREFIX)
        }
    engine.dispose()
    return columns


def in_the_way(connection: Connection, revision: Revision) -> str | None:
    """Return a table that a migration is still to create and that another application has created.

    A migration that was cut off may have left tables: those have all the columns of the
    migration.
    """
    looked = inspect(connection)
    there = {*looked.get_table_names(), *looked.get_view_names()}
    before = columns_at(revision.found) if revision.found else {}
    to_come = {*columns_at(revision.head)} - {*before}
    if not there & to_come:
        return None
    for later in sorted(each for each in revisions() if each > (revision.found or "")):
        after = columns_at(later)
        for table in sorted((after.keys() - before.keys()) & there):
            if after[table] - {column["name"] for column in looked.get_columns(table)}:
                return table
        before = after
    return None


async def revision_of(database: Database) -> Revision:
    """Return the revision of a database that answers."""
    async with database.engine.connect() as connection:
        return Revision(await connection.run_sync(_found), head())


def _found(connection: Connection) -> str | None:
    from alembic.migration import MigrationContext  # noqa: PLC0415 see above

    return MigrationContext.configure(connection).get_current_revision()
