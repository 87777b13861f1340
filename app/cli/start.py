"""What starts a server: the tables, the first admin, and the sockets it listens at."""

from __future__ import annotations

import os
import secrets
from collections.abc import Sequence
from functools import partial
from socket import socket
from typing import Annotated

import typer

from app.cli.database import on_database
from app.cli.migrate import migrate, refuse_unfit_database
from app.config import LogFormat, Settings, load_settings
from app.config.checks import FIRST_ADMIN_NAME
from app.core import logging
from app.core.context import RequestContext, current
from app.core.exceptions import EmailTaken
from app.core.i18n import environment_locale
from app.core.security import Passwords
from app.crud import admins, users
from app.db.engine import Database
from app.schemas.emails import normal_email
from app.server import serving

Reload = Annotated[
    bool,
    typer.Option("--reload", help="Start again when a file of app/ changes: for development."),
]


def run(reload: Reload = False) -> None:
    """Migrate, make the first admin if there is none, and serve."""
    settings = _to_serve(reload=reload)
    # First: who cannot serve has nothing to migrate, and shows no password.
    with serving.listening(settings.host, settings.port) as sockets:
        migrate()
        _first_admin(settings)
        _serve(settings, sockets, reload=reload)


def serve(reload: Reload = False) -> None:
    """Serve the API, on the host and port and with the workers of the settings."""
    settings = _to_serve(reload=reload)
    with serving.listening(settings.host, settings.port) as sockets:
        _serve(settings, sockets, reload=reload)


def _to_serve(*, reload: bool) -> Settings:
    settings = load_settings()
    if reload and settings.workers > 1:
        raise SystemExit("cimiento: refusing to start: --reload serves one worker: set WORKERS=1")
    if reload and not settings.in_development:
        raise SystemExit(
            "cimiento: refusing to start: --reload is for ENVIRONMENT=development alone"
        )
    return settings


def _serve(settings: Settings, sockets: Sequence[socket], *, reload: bool) -> None:
    refuse_unfit_database(settings)
    logging.configure(level=settings.log_level, as_json=settings.log_format is LogFormat.json)
    if settings.docs_enabled:
        typer.echo(f"API docs:     {settings.own_url}/docs", err=True)
    serving.serve(
        "app.main:create_app",
        sockets,
        reload=reload,
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


def address_of(text: str, settings: Settings) -> str | None:
    """Return an address as registration would keep it; None for what is not one."""
    domains = settings.special_use_domains
    token = current.set(RequestContext(request_id="", special_use_domains=domains))
    try:
        return normal_email(text)
    finally:
        current.reset(token)


def add_admin(email: str, name: str, password: str) -> None:
    """Make an account with the role admin, in the language of the shell. Raise EmailTaken."""
    locale = environment_locale(os.environ)

    async def add(database: Database) -> None:
        hashed = await Passwords().hash(password)
        await database.run(
            partial(users.create_admin, email=email, name=name, password_hash=hashed, locale=locale)
        )

    on_database(add)


def _first_admin(settings: Settings) -> None:
    """Create the admin of the settings if there is none; no other account has a default."""

    async def is_missing(database: Database) -> bool:
        async with database.begin(readonly=True) as session:
            return not await admins.has_admin(session)

    if not on_database(is_missing):
        return
    given = settings.first_admin_password
    if given is None and not settings.in_development:
        typer.echo("No admin yet: set FIRST_ADMIN_PASSWORD or run scripts/create-admin.", err=True)
        return
    address = address_of(settings.first_admin_email, settings)
    if address is None:
        raise SystemExit(
            "cimiento: refusing to start: FIRST_ADMIN_EMAIL is not an e-mail address; a domain"
            " that the public DNS does not have needs SPECIAL_USE_DOMAINS"
        )
    password = given.get_secret_value() if given else f"A1-{secrets.token_urlsafe(12)}"
    try:
        add_admin(address, FIRST_ADMIN_NAME, password)
    # The user who registered it first keeps it, and gets no rights by it.
    except EmailTaken:
        typer.echo("No admin yet: FIRST_ADMIN_EMAIL is taken; run scripts/create-admin.", err=True)
        return
    typer.echo(f"First admin:  {address}", err=True)
    if given is None:
        typer.echo(f"Password:     {password}   (shown only now)", err=True)
