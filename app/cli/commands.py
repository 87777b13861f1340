"""The commands behind `scripts/`: `python -m app.cli --help` lists them."""

from __future__ import annotations

import asyncio
import json
import re
from dataclasses import asdict
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer
from sqlalchemy.ext.asyncio import AsyncSession

from app.cli import seeding
from app.cli.backup.commands import backup, restore
from app.cli.database import begin, on_database
from app.cli.migrate import migrate, refuse_unfit_database
from app.cli.mistakes import Commands
from app.cli.purge import purge
from app.cli.start import add_admin, address_of, run, serve
from app.config import Settings, TokenAlgorithm, load_settings, read_settings
from app.core import key_files
from app.core.exceptions import EmailTaken, Invalid
from app.core.i18n import text
from app.core.passwords import is_published
from app.crud import one_time_tokens, sessions, users
from app.main import create_app
from app.schemas.users import normal_name
from app.tasks.worker import run_beat, run_worker

if TYPE_CHECKING:
    from app.cli.doctor.findings import Finding

T = TypeVar("T")

cli = typer.Typer(
    cls=Commands,
    add_completion=False,
    no_args_is_help=True,
    callback=begin,
    # Of a defect: all of the trace, as Python has it.
    pretty_exceptions_enable=False,
)
for command in (run, serve, migrate, backup, restore, purge):
    cli.command()(command)


@cli.command()
def create_admin(
    email: Annotated[str, typer.Option(prompt=True)],
    name: Annotated[str, typer.Option(prompt=True)],
    password: Annotated[str, typer.Option(prompt=True, hide_input=True)],
) -> None:
    """Make an account with the role admin."""
    settings = load_settings()
    address = address_of(email, settings)
    if address is None:
        raise typer.BadParameter("not an e-mail address", param_hint="--email")
    if not settings.in_development and is_published(password):
        raise typer.BadParameter(
            "This password stands in the documentation.", param_hint="--password"
        )
    try:
        name = normal_name(name)
        users.refuse_weak(password, settings.password_policy, email=address, name=name)
        add_admin(address, name, password)
    except Invalid as error:
        raise typer.BadParameter(
            _in_words(error), param_hint=f"--{error.errors[0].field}"
        ) from None
    except EmailTaken:
        raise typer.BadParameter("this address is taken", param_hint="--email") from None
    typer.echo(f"Admin {address} created.")


@cli.command()
def seed(
    user_count: Annotated[int, typer.Option("--users", min=1, max=10_000_000)] = 20,
    post_count: Annotated[int, typer.Option("--posts", min=0, max=100_000_000)] = 200,
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
    settings = _with_redis()
    refuse_unfit_database(settings)
    run_worker(settings, context.args)


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
            max=36_500,
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
        kept = key_files.rotate_secret(settings.data_dir, keep=timedelta(days=days))
        typer.echo(f"New secret in {settings.data_dir}/secret.key, {kept} before it kept.")
    else:
        _print_secrets(settings, days)
    if settings.token_algorithm is TokenAlgorithm.es256:
        kept = key_files.rotate_pair(settings.data_dir, keep=timedelta(days=days))
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
    from app.cli.doctor.findings import Verdict, failure, summed_up  # noqa: PLC0415 see above

    found: list[Finding] = []
    try:
        with key_files.only_looking():
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
    from app.cli.doctor import examine  # noqa: PLC0415 see `doctor`

    async for finding in examine(settings):
        found.append(finding)
        if show:
            _show(finding)


def _show(finding: Finding) -> None:
    typer.echo(f"{finding.verdict:<5} {finding.check}: {finding.message}")
    if finding.remedy:
        typer.echo(f"      -> {finding.remedy}")


def _end_all_logins() -> None:
    """End what the holder of a key can derive: the next refresh token of a session from one before
    it, links in mails from the outbox."""

    async def end(session: AsyncSession) -> tuple[int, int]:
        ended = await sessions.end_everybodys(session)
        return ended, await one_time_tokens.withdraw_everybodys(session)

    ended, links = on_database(lambda database: database.run(end))
    typer.echo(f"{ended} sessions and {links} mailed links ended: all log in again.", err=True)


def _print_secrets(settings: Settings, keep_days: int) -> None:
    """Print the lines that the operator sets in place of SECRET_KEY; on stdout alone."""
    older = [secret for _, secret in settings.keys.items()][: key_files.MAX_KEPT - 1]
    kept = older if keep_days else []
    plain = all(re.fullmatch(r"[\w.~+/=-]+", secret, re.ASCII) for secret in kept)
    older_secrets = ",".join(kept) if plain else f"'{json.dumps(kept)}'"
    typer.echo(f"SECRET_KEY={key_files.new_secret()}\nSECRET_KEY_FALLBACKS={older_secrets}")
    typer.echo("Set these two lines where SECRET_KEY is set now.", err=True)
    if kept:
        typer.echo(f"Leave out what was replaced over {keep_days} days ago.", err=True)


def _in_words(error: Invalid) -> str:
    return " ".join(text("en", "validation", e.type, **e.values) for e in error.errors)
