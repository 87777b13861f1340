"""The application: every part is made here, and handed to the others."""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.middleware.cors import CORSMiddleware

from app import __version__, database, openapi, throttling
from app.config import LogFormat, Settings, load_settings
from app.core import logging, problems
from app.core.exceptions import Forbidden
from app.core.middleware import BodyLimit, RequestScope, TrustedHosts
from app.core.recovery import Deadline, Recover
from app.core.security import AccessTokens, Passwords
from app.crud.denials import Denials
from app.crud.idempotency import REPLAYED, Replay
from app.crud.pages import Cursors, Pages
from app.crud.sessions import Identities
from app.db import errors
from app.readiness import Readiness
from app.reading import open_reader
from app.routers import (
    account,
    audit,
    auth,
    creating,
    denials,
    docs,
    doors,
    keys,
    operations,
    outbox,
    posts,
    recovery,
    roles,
    sessions,
    tags,
    users,
)
from app.routers.admission import LoginAdmission
from app.routers.shortcut import Shortcut
from app.tasks.engine import engine_for
from app.tasks.mail import mailer_for
from app.telemetry import Telemetry
from app.writing import open_writer

_ALLOWED = [
    *("Authorization", "Content-Type", "If-Match", "If-None-Match", "X-Request-ID"),
    creating.HEADER,
]
_EXPOSED = [
    *("ETag", "Link", "Location", "RateLimit", "RateLimit-Policy", "Retry-After"),
    *("X-Request-ID", "X-Total-Count", REPLAYED),
]


def create_app(settings: Settings | None = None, *, passwords: Passwords | None = None) -> FastAPI:
    """The application for some settings (default: the environment's).

    Nothing is connected to before the first request. Ends the process on unsafe settings.
    """
    settings = settings or load_settings()
    telemetry = _telemetry(settings)
    app = FastAPI(
        title="Cimiento API",
        version=__version__,
        lifespan=_lifespan,
        docs_url=None,
        redoc_url=None,
        openapi_url="/openapi.json" if settings.docs_enabled else None,
        redirect_slashes=False,
        generate_unique_id_function=_operation_id,
        telemetry=telemetry.config,
    )
    state = app.state
    state.settings = settings
    state.database = database.connect(settings)
    state.passwords = passwords or Passwords()
    state.tokens = AccessTokens(
        settings.keys, settings.key_pairs, minutes=settings.access_token_minutes
    )
    state.reader = open_reader(state.database)
    state.writer = open_writer(state.database)
    state.readiness = Readiness(state.database, settings)
    state.pages = Pages(state.reader, Cursors(settings.keys))
    state.identities = Identities(state.reader, state.tokens)
    state.denials = Denials(state.database)
    state.gate = throttling.gate_of(settings)
    state.telemetry = telemetry
    telemetry.watch(state.database, state.reader)
    mailer = telemetry.counting(mailer_for(settings))
    state.dispatcher = engine_for(state.database, mailer, settings)
    problems.register(app)
    doors.count_unread(app)
    app.add_exception_handler(Forbidden, denials.refuse)
    app.add_exception_handler(Replay, creating.replay)
    openapi.install(app)
    _add_routes(app, settings)
    _add_middleware(app, settings)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
    settings: Settings = app.state.settings
    logging.configure(level=settings.log_level, as_json=settings.log_format is LogFormat.json)
    app.state.dispatcher.start()
    # What has been made by now stays: the collector need not walk it over and over.
    gc.collect()
    gc.freeze()
    # `serving.py` finds the app by it.
    yield {"app": app}
    app.state.readiness.drain()
    # The dispatcher still writes down what it sent; the connections close after it.
    await app.state.dispatcher.stop()
    await close_app(app)


async def close_app(app: FastAPI) -> None:
    """Close every connection that an app has opened, also when closing one of them fails."""
    state = app.state
    async with AsyncExitStack() as closing:
        closing.push_async_callback(state.database.dispose)
        closing.push_async_callback(state.reader.dispose)
        closing.push_async_callback(state.writer.dispose)
        closing.push_async_callback(state.telemetry.close)
        closing.push_async_callback(state.readiness.close)
        closing.push_async_callback(state.gate.close)


def _telemetry(settings: Settings) -> Telemetry:
    if not settings.metrics_enabled:
        return Telemetry(settings)
    from app.metrics import Metrics  # noqa: PLC0415 its libraries are not wanted otherwise

    return Metrics(settings)


def _operation_id(route: APIRoute) -> str:
    """The function's name: unique, short, and what generated clients call their methods."""
    return route.name


def _add_routes(app: FastAPI, settings: Settings) -> None:
    parts = (auth, sessions, recovery, users, roles, posts, tags, audit, outbox, operations, keys)
    routers = [each.router for each in parts]
    app.router.routes.insert(0, Shortcut(route for router in routers for route in router.routes))
    for router in routers:
        app.include_router(router)
    if settings.metrics_enabled:
        app.include_router(operations.metrics_router)
    app.include_router(docs.errors_router)
    app.include_router(account.router)
    if settings.docs_enabled:
        app.include_router(docs.docs_router)
        app.mount("/static/vendor", docs.vendor_assets)
    app.mount("/static", docs.own_assets)


def _add_middleware(app: FastAPI, settings: Settings) -> None:
    """`core/middleware.py` lists them; the last one added is the first one met."""
    app.add_middleware(Recover, is_transient=errors.is_transient, refusal_of=errors.refusal_of)
    app.add_middleware(LoginAdmission)
    app.add_middleware(Deadline, seconds=settings.request_timeout_seconds)
    app.add_middleware(BodyLimit, limit=settings.max_body_bytes)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"],
            allow_headers=_ALLOWED,
            expose_headers=_EXPOSED,
            max_age=600,
        )
    if "*" not in settings.trusted_hosts:
        app.add_middleware(TrustedHosts, hosts=settings.trusted_hosts)
    app.add_middleware(RequestScope, access_log=settings.access_log)


def __getattr__(name: str) -> Any:
    """`uvicorn app.main:app` works too; importing this module alone reads no settings."""
    if name == "app":
        return create_app()
    raise AttributeError(name)
