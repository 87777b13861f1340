"""The commands behind `scripts/`: `python -m app.cli --help` lists them."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Annotated, TypeVar

import typer
import uvicorn

from app import seeding
from app.config import LogFormat, Settings, load_settings
from app.core import logging
from app.core.exceptions import EmailTaken, FieldError, Invalid
from app.core.i18n import text
from app.core.security import Passwords
from app.crud import admins, trash, users
from app.database import Database, connect
from app.main import create_app
from app.models.base import utc_now
from app.schemas.users import normal_email

ROOT = Path(__file__).parent.parent
GRACE_SECONDS = 6
T = TypeVar("T")

cli = typer.Typer(add_completion=False, no_args_is_help=True, help="Cimiento's commands.")


@cli.command()
def run() -> None:
    """Migrate, make the first admin if there is none, and serve."""
    migrate()
    _first_admin(load_settings())
    serve()


@cli.command()
def serve() -> None:
    """Serve the API, on the host and port and with the workers of the settings."""
    settings = load_settings()
    logging.configure(level=settings.log_level, as_json=settings.log_format is LogFormat.json)
    if settings.docs_enabled:
        typer.echo(f"API docs:     http://{settings.host}:{settings.port}/docs", err=True)
    uvicorn.run(
        "app.main:create_app",
        factory=True,
        host=settings.host,
        port=settings.port,
        workers=settings.workers,
        log_config=None,
        access_log=False,
        server_header=False,
        # Forwarded addresses count only when they come from a proxy of ours.
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=settings.trusted_proxies,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )


@cli.command()
def migrate() -> None:
    """Bring the tables up to date."""
    # Imported here: a server that only serves need not carry its 11 MiB.
    from alembic.config import Config  # noqa: PLC0415 see above

    from alembic import command  # noqa: PLC0415 see above

    command.upgrade(Config(ROOT / "alembic.ini"), "head")


@cli.command()
def create_admin(
    email: Annotated[str, typer.Option(prompt=True)],
    name: Annotated[str, typer.Option(prompt=True)],
    password: Annotated[str, typer.Option(prompt=True, hide_input=True)],
) -> None:
    """Make an account with the role admin."""
    settings = load_settings()
    address = normal_email(email)
    if address is None:
        raise typer.BadParameter("not an e-mail address", param_hint="--email")
    try:
        users.refuse_weak(password, settings.password_policy, email=address, name=name)
        _add_admin(address, name, password)
    except Invalid as error:
        raise typer.BadParameter(_in_words(error.errors), param_hint="--password") from None
    except EmailTaken:
        raise typer.BadParameter("this address is taken", param_hint="--email") from None
    typer.echo(f"Admin {address} made.")


@cli.command()
def seed(
    user_count: Annotated[int, typer.Option("--users", min=1)] = 20,
    post_count: Annotated[int, typer.Option("--posts", min=0)] = 200,
) -> None:
    """Add demo users and posts. The users cannot log in: they have no passwords."""
    with typer.progressbar(length=user_count + post_count, label="Seeding") as bar:
        _with_database(
            lambda database: seeding.seed(
                database, users=user_count, posts=post_count, progress=bar.update
            )
        )


@cli.command()
def purge() -> None:
    """Delete for good what has been in the trash longer than TRASH_DAYS."""
    before = utc_now() - timedelta(days=load_settings().trash_days)

    async def empty(database: Database) -> dict[str, int]:
        async with database.begin() as session:
            return await trash.purge(session, before=before)

    counts = _with_database(empty)
    typer.echo(", ".join(f"{count} {name}" for name, count in counts.items()) + " purged.")


@cli.command()
def openapi() -> None:
    """Print the OpenAPI document."""
    typer.echo(json.dumps(create_app().openapi(), indent=2, ensure_ascii=False))


def _with_database(work: Callable[[Database], Awaitable[T]]) -> T:
    """Run some work on the database of the settings, and close it afterwards."""

    async def opened() -> T:
        database = connect(load_settings())
        try:
            return await work(database)
        finally:
            await database.dispose()

    return asyncio.run(opened())


def _add_admin(email: str, name: str, password: str) -> None:
    async def add(database: Database) -> None:
        hashed = await Passwords().hash(password)
        async with database.begin() as session:
            await users.create_admin(session, email=email, name=name, password_hash=hashed)

    _with_database(add)


def _first_admin(settings: Settings) -> None:
    """Make the admin of the settings while there is none; nobody else ever has a default."""

    async def is_missing(database: Database) -> bool:
        async with database.begin(readonly=True) as session:
            return not await admins.has_admin(session)

    if not _with_database(is_missing):
        return
    given = settings.first_admin_password
    if given is None and not settings.in_development:
        typer.echo("No admin yet: set FIRST_ADMIN_PASSWORD or run scripts/create-admin.", err=True)
        return
    address = normal_email(settings.first_admin_email)
    if address is None:
        raise SystemExit("cimiento: refusing to start: FIRST_ADMIN_EMAIL is not an e-mail address")
    password = given.get_secret_value() if given else f"A1-{secrets.token_urlsafe(12)}"
    try:
        _add_admin(address, "Admin", password)
    # Whoever registered it first keeps it, and gets no rights by it.
    except EmailTaken:
        typer.echo("No admin yet: FIRST_ADMIN_EMAIL is taken; run scripts/create-admin.", err=True)
        return
    typer.echo(f"First admin:  {address}", err=True)
    if given is None:
        typer.echo(f"Password:     {password}   (shown only now)", err=True)


def _in_words(errors: Sequence[FieldError]) -> str:
    return " ".join(text("en", "validation", e.type, **e.values) for e in errors)


if __name__ == "__main__":
    cli()
