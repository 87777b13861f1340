"""The command behind `scripts/migrate`, and the checks before a migration and before serving."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import typer
from sqlalchemy.exc import SQLAlchemyError

from app.cli.database import on_database
from app.config import Settings
from app.db import fitness, migrations, search_index
from app.db.engine import Database, connect
from app.db.migrations import Revision
from app.models import Base

T = TypeVar("T")
LOOK_SECONDS = 3.0
_TABLES = frozenset(Base.metadata.tables)


def migrate() -> None:
    """Bring the tables up to date. A newer version may have done so, and more: that is well."""
    # Imported here: a server that only serves need not carry its 11 MiB.
    from alembic import command  # noqa: PLC0415 see above

    revision = on_database(_revision, direct=True)
    if revision.is_newer:
        typer.echo(f"Nothing to do: a newer version migrated to {revision.found}.", err=True)
        return
    if revision.is_older:
        command.upgrade(migrations.config(), "head")
    if indexed := on_database(search_index.fill):
        typer.echo(f"Words of {indexed} rows indexed.", err=True)


def refuse_unfit_database(settings: Settings) -> None:
    """End the process where a database answers that could not be served from, migrated or not."""
    url = settings.url
    if url.get_backend_name() == "sqlite" and not Path(str(url.database)).is_file():
        return  # to look would make it
    try:
        reason = asyncio.run(_unfitness(settings))
    # It is away, or does not let us in: /health/ready goes on reporting it.
    except (SQLAlchemyError, OSError):
        return
    if reason:
        raise SystemExit(f"cimiento: refusing to start: {reason}")


async def _unfitness(settings: Settings) -> str | None:
    database = connect(settings)
    try:
        async with asyncio.timeout(LOOK_SECONDS), database.probing.connect() as connection:
            return await connection.run_sync(fitness.refusal_of, _TABLES)
    finally:
        await database.dispose()


async def _revision(database: Database) -> Revision:
    """Return how far the tables are; end the process where the database is unfit, or not ours."""
    if reason := await _looked(database, fitness.refusal_of, _TABLES):
        raise SystemExit(f"cimiento: not migrated: {reason}")
    revision = await migrations.revision_of(database)
    if revision.is_older and (table := await _looked(database, migrations.in_the_way, revision)):
        raise SystemExit(
            f"cimiento: not migrated: the table {table} belongs to another application"
        )
    return revision


async def _looked(database: Database, look: Callable[..., T], *arguments: object) -> T:
    async with database.reading.connect() as connection:
        return await connection.run_sync(look, *arguments)
