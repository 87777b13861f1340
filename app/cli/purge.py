"""The command behind `scripts/purge`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import typer
from sqlalchemy import select

from app.cli.database import on_database
from app.config import load_settings
from app.db.engine import Database
from app.db.failures import described
from app.models.roles import Role
from app.tasks import retention as purging
from app.tasks.repair import REPAIRS


def purge() -> None:
    """Delete for good what was in the trash longer than TRASH_DAYS, old mails and audit events, and
    tags that no post has: in small batches, while everybody goes on working. Exit status 1 if the
    database refused some of it; run it again then."""
    settings = load_settings()
    # A database that is away, or without tables, is one mistake, and not one for each rule.
    on_database(_answers)
    with _progress() as progress:
        done = on_database(lambda database: purging.purge_deleted(database, settings, progress))
    typer.echo(", ".join(f"{count} {name}" for name, count in done.counts.items()) + " purged.")
    for name, count in done.repaired.items():
        if count:
            typer.echo(f"{count} {name} mended.")
    for name, error in done.failures.items():
        done_to = "mended" if name in REPAIRS else "purged"
        typer.echo(f"cimiento: {name} are not all {done_to}: {_in_words(error)}", err=True)
    if done.failures:
        raise typer.Exit(1)


async def _answers(database: Database) -> None:
    async with database.begin(readonly=True) as session:
        await session.execute(select(Role.id).limit(1))


def _in_words(error: Exception) -> str:
    """Return the error and its number, never the driver's text, which may hold a row."""
    facts = described(error)
    names = ("errno", "sqlstate", "sqlite")
    return ", ".join(
        [facts["error"], *(f"{name} {facts[name]}" for name in names if name in facts)]
    )


@contextmanager
def _progress() -> Iterator[purging.Progress]:
    """Show on a terminal what is being deleted, and how fast."""
    if not sys.stderr.isatty():
        yield lambda *_: None
        return
    # Imported here: most commands, and the purge of every night, show nothing.
    from rich.console import Console  # noqa: PLC0415 see above
    from rich.progress import (  # noqa: PLC0415 see above
        BarColumn,
        Progress,
        TaskID,
        TextColumn,
        TimeElapsedColumn,
    )

    rows = TextColumn("{task.completed:,.0f} rows, {task.fields[rate]:,.0f}/s")
    columns = (TextColumn("{task.description:<16}"), BarColumn(), rows, TimeElapsedColumn())
    bars: dict[str, TaskID] = {}
    with Progress(*columns, console=Console(stderr=True)) as shown:

        def tell(name: str, count: int) -> None:
            if name not in bars:
                for bar in bars.values():
                    shown.update(bar, total=shown.tasks[bar].completed)
                bars[name] = shown.add_task(name, total=None, rate=0)
            task = shown.tasks[bars[name]]
            shown.advance(task.id, count)
            shown.update(task.id, rate=task.completed / (task.elapsed or 1))

        yield tell
