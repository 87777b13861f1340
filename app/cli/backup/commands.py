"""The commands behind `scripts/backup` and `scripts/restore`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, TypeVar

import typer
from sqlalchemy.exc import DBAPIError

from app.cli import backup as backups
from app.cli.backup import BackupError
from app.cli.database import on_database
from app.db.engine import Database

T = TypeVar("T")


def backup(
    file: Annotated[Path, typer.Argument(help="A new file; it appears when it is whole.")],
) -> None:
    """Write the whole database into a file, while it is in use. Secrets are not in it."""
    if not file.absolute().parent.is_dir():
        raise SystemExit(f"cimiento: the folder {file.parent} does not exist: make it first")
    revision = _done(lambda database: backups.back_up(database, file))
    size = file.stat().st_size
    typer.echo(f"{file}: {size:,} bytes, revision {revision.found}.")
    typer.echo("Not in it: SECRET_KEY, and what lies under DATA_DIR.", err=True)


def restore(
    file: Annotated[Path, typer.Argument(help="What `backup` wrote.")],
    force: Annotated[bool, typer.Option("--force", help="Drop all tables there are.")] = False,
) -> None:
    """Fill an empty database from a backup. The servers have to be stopped."""
    revision = _done(lambda database: backups.restore(database, file, force=force))
    typer.echo(f"{file} restored, revision {revision.found}.")
    if revision.is_older:
        typer.echo("It is of an older version: run scripts/migrate.", err=True)
    if revision.is_newer:
        typer.echo("It is of a newer version: update as soon as you can.", err=True)
    typer.echo(
        "Logins and links ended since the backup are valid again: docs/operations.md", err=True
    )


def _done(work: Callable[[Database], Awaitable[T]]) -> T:
    """Do it, or end with a line for the operator."""
    try:
        return on_database(work, direct=True)
    except (BackupError, OSError) as error:
        raise _ended(str(error)) from None
    except DBAPIError as error:
        raise _ended(f"the database refuses: {error.orig}") from None


def _ended(reason: str) -> SystemExit:
    """Return the end of the process, in one line: drivers and programs report in several."""
    return SystemExit("cimiento: " + " ".join(reason.split()))
