"""How far the tables are: the revision a database is at, beside the last one this code knows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, create_engine, inspect

from app.database import Database

if TYPE_CHECKING:
    from alembic.config import Config

ROOT = Path(__file__).parent.parent
# SQLite's full-text indexes, and the tables that they keep: made from others, in no backup.
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


def config() -> Config:
    """The configuration for Alembic's commands."""
    # Imported here and below: a server that only serves need not carry its 11 MiB.
    from alembic.config import Config  # noqa: PLC0415 see above

    return Config(ROOT / "alembic.ini")


def revisions() -> frozenset[str]:
    """Every revision that this code knows."""
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


async def revision_of(database: Database) -> Revision:
    """The revision of a database that answers."""
    from alembic.script import ScriptDirectory  # noqa: PLC0415 see above

    head = ScriptDirectory.from_config(config()).get_current_head()
    assert head is not None
    async with database.engine.connect() as connection:
        return Revision(await connection.run_sync(_found), head)


def _found(connection: Connection) -> str | None:
    from alembic.migration import MigrationContext  # noqa: PLC0415 see above

    return MigrationContext.configure(connection).get_current_revision()
