"""The commands behind `scripts/`: `python -m app.cli --help` lists them."""

from __future__ import annotations

import asyncio
import json
import re
import secrets
from dataclasses import asdict
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer
from sqlalchemy.ext.asyncio import AsyncSession

from app import keyfiles, migrations, seeding, serving
from app.backups.commands import backup, restore
from app.commands import begin, on_database
from app.config import (
    FIRST_ADMIN_NAME,
    LogFormat,
    Settings,
    TokenAlgorithm,
    load_settings,
    read_settings,
)
from app.core import logging
from app.core.exceptions import EmailTaken, Invalid
from app.core.i18n import text
from app.core.passwords import is_published
from app.core.security import Passwords
from app.crud import admins, one_time, search_index, sessions, users
from app.database import Database
from app.main import create_app
from app.schemas.users import normal_email, normal_name
from app.tasks.commands import purge
from app.tasks.worker import run_beat, run_worker

if TYPE_CHECKING:
    from app.doctor.findings import Finding

T = TypeVar("T")

cli = typer.Typer(add_completion=False, no_args_is_help=True, callback=begin)
cli.command()(backup)
cli.command()(restore)
cli.command()(purge)


@cli.command()
def run() -> None:
    """Migrate, make the first admin if there is none, and serve."""
    settings = load_settings()
    migrate()
    _first_admin(settings)
    serve()


@cli.command()
def serve() -> None:
    """Serve the API, on the host and port and with the workers of the settings."""
    settings = load_settings()
    logging.configure(level=settings.log_level, as_json=settings.log_format is LogFormat.json)
    if settings.docs_enabled:
        typer.echo(f"API docs:     http://{settings.host}:{settings.port}/docs", err=True)
    serving.serve(
        "app.main:create_app",
        host=settings.host,
        port=settings.port,
        workers=settings.workers,
        log_config=None,
        access_log=False,
        server_header=False,
        # Forwarded addresses count only when they come from a proxy of ours.
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=settings.trusted_proxies,
    )


@cli.command()
def migrate() -> None:
    """Bring the tables up to date. A newer version may have done so, and more: that is well."""
    # Imported here: a server that only serves need not carry its 11 MiB.
    from alembic import command  # noqa: PLC0415 see above

    revision = on_database(migrations.revision_of)
    if revision.is_newer:
        typer.echo(f"Nothing to do: a newer version migrated to {revision.found}.", err=True)
        return
    command.upgrade(migrations.config(), "head")
    if indexed := on_database(search_index.fill):
        typer.echo(f"Words of {indexed} rows indexed.", err=True)


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
    if not settings.in_development and is_published(password):
        raise typer.BadParameter(
            "This password stands in the documentation.", param_hint="--password"
        )
    try:
        name = normal_name(name)
        users.refuse_weak(password, settings.password_policy, email=address, name=name)
        _add_admin(address, name, password)
    except Invalid as error:
        raise typer.BadParameter(
            _in_words(error), param_hint=f"--{error.errors[0].field}"
        ) from None
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
        on_database(
            lambda database: seeding.seed(
                database, users=user_count, posts=post_count, progress=bar.update
            )
        )


@cli.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def worker(context: typer.Context) -> None:
    """Deliver mails and purge, for API processes with the same REDIS_URL.

    Takes the options of Celery's worker, like --concurrency 8 or --pool threads.
    """
    run_worker(_with_redis(), context.args)


@cli.command()
def beat() -> None:
    """Have the workers look for mails every second, and purge every night. One is enough."""
    run_beat(_with_redis())


@cli.command()
def rotate_key(
    keep_days: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="What was replaced longer ago is dropped, and what it signed ends: as many days"
            " as REFRESH_TOKEN_DAYS unless given. 0 after a leak, with the servers stopped: it also"
            " ends all sessions and mailed links, so that everybody logs in again.",
        ),
    ] = None,
) -> None:
    """Make a new secret, and for ES256 a new key pair; those before stay valid. Then restart."""
    settings = read_settings()
    days = settings.refresh_token_days if keep_days is None else keep_days
    # First: if it fails, the command can be run again as if it had not been.
    if days == 0:
        _end_all_logins()
    if settings.keeps_secret:
        kept = keyfiles.rotate_secret(settings.data_dir, keep=timedelta(days=days))
        typer.echo(f"New secret in {settings.data_dir}/secret.key, {kept} before it kept.")
    else:
        _print_secrets(settings, days)
    if settings.token_algorithm is TokenAlgorithm.es256:
        kept = keyfiles.rotate_pair(settings.data_dir, keep=timedelta(days=days))
        typer.echo(f"New key pair in {settings.data_dir}/keys, {kept} before it kept.", err=True)
    typer.echo("Restart the servers.", err=True)


@cli.command()
def openapi() -> None:
    """Print the OpenAPI document."""
    typer.echo(json.dumps(create_app().openapi(), indent=2, ensure_ascii=False))


def _with_redis() -> Settings:
    settings = load_settings()
    if not settings.redis_url:
        raise SystemExit(
            "cimiento: refusing to start: workers need REDIS_URL; without it the API itself"
            " delivers mails"
        )
    return settings


@cli.command()
def doctor(
    as_json: Annotated[
        bool, typer.Option("--json", help="One list of objects, for tools.")
    ] = False,
) -> None:
    """Check everything the app needs, and say how to mend what is wrong: exit status 1 then."""
    # Imported here: a server need not carry it, nor Alembic with it.
    from app.doctor.findings import Verdict, failure, summed_up  # noqa: PLC0415 see above

    found: list[Finding] = []
    try:
        settings = read_settings()
        asyncio.run(_examined(settings, found, show=not as_json))
    except SystemExit as refusal:
        reasons = str(refusal.code).removeprefix("cimiento: refusing to start: ")
        found.append(failure("settings", reasons, "Set them right: .env.example explains each."))
        if not as_json:
            _show(found[-1])
    in_json = json.dumps([asdict(each) for each in found], indent=2, ensure_ascii=False)
    typer.echo(in_json if as_json else f"\n{summed_up(found)}")
    if any(each.verdict is Verdict.fail for each in found):
        raise typer.Exit(1)


async def _examined(settings: Settings, found: list[Finding], *, show: bool) -> None:
    from app.doctor import examine  # noqa: PLC0415 see `doctor`

    async for finding in examine(settings):
        found.append(finding)
        if show:
            _show(finding)


def _show(finding: Finding) -> None:
    typer.echo(f"{finding.verdict:<5} {finding.check}: {finding.message}")
    if finding.remedy:
        typer.echo(f"      -> {finding.remedy}")


def _end_all_logins() -> None:
    """End what can be derived by whoever has a key: the next refresh token of a session from one
    before it, links in mails from the outbox."""

    async def end(session: AsyncSession) -> tuple[int, int]:
        ended = await sessions.end_everybodys(session)
        return ended, await one_time.withdraw_everybodys(session)

    ended, links = on_database(lambda database: database.run(end))
    typer.echo(f"{ended} sessions and {links} mailed links ended: all log in again.", err=True)


def _print_secrets(settings: Settings, keep_days: int) -> None:
    """The lines to set where SECRET_KEY is set, which only the operator can; on stdout alone."""
    older = [secret for _, secret in settings.keys.items()][: keyfiles.MAX_KEPT - 1]
    kept = older if keep_days else []
    plain = all(re.fullmatch(r"[\w.~+/=-]+", secret, re.ASCII) for secret in kept)
    listed = ",".join(kept) if plain else f"'{json.dumps(kept)}'"
    typer.echo(f"SECRET_KEY={keyfiles.new_secret()}\nSECRET_KEY_FALLBACKS={listed}")
    typer.echo("Set these two lines where SECRET_KEY is set now.", err=True)
    if kept:
        typer.echo(f"Leave out what was replaced over {keep_days} days ago.", err=True)


def _add_admin(email: str, name: str, password: str) -> None:
    async def add(database: Database) -> None:
        hashed = await Passwords().hash(password)
        await database.run(
            partial(users.create_admin, email=email, name=name, password_hash=hashed)
        )

    on_database(add)


def _first_admin(settings: Settings) -> None:
    """Make the admin of the settings while there is none; nobody else ever has a default."""

    async def is_missing(database: Database) -> bool:
        async with database.begin(readonly=True) as session:
            return not await admins.has_admin(session)

    if not on_database(is_missing):
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
        _add_admin(address, FIRST_ADMIN_NAME, password)
    # Whoever registered it first keeps it, and gets no rights by it.
    except EmailTaken:
        typer.echo("No admin yet: FIRST_ADMIN_EMAIL is taken; run scripts/create-admin.", err=True)
        return
    typer.echo(f"First admin:  {address}", err=True)
    if given is None:
        typer.echo(f"Password:     {password}   (shown only now)", err=True)


def _in_words(error: Invalid) -> str:
    return " ".join(text("en", "validation", e.type, **e.values) for e in error.errors)


if __name__ == "__main__":
    cli()
