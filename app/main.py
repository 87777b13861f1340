"""The application: every part is created here, and passed to the others."""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute

from app import __version__
from app.config import LogFormat, Settings, load_settings
from app.core import i18n, logging
from app.core.exceptions import Forbidden
from app.core.security import AccessTokens, Passwords
from app.crud.idempotency_keys import ReplayResponse
from app.crud.sessions import TokenAuthenticator
from app.db import engine, errors
from app.db.cursors import CursorSigner
from app.db.pagination import Paginator
from app.db.queries import open_query_runner
from app.db.transactions import open_transaction_runner
from app.observability.readiness import Readiness
from app.observability.telemetry import Telemetry
from app.rate_limits import limiter
from app.resources import RESOURCES, Resource, tags_of
from app.routers import account_pages, docs, operations
from app.tasks.mail import mailer_for
from app.tasks.outbox_runner import outbox_runner_for
from app.web import access_denied, idempotency, openapi, problems, rate_limits
from app.web.access_denied import AccessDeniedLog
from app.web.middleware.body_size import BodySizeLimitMiddleware
from app.web.middleware.cors import CrossOriginMiddleware
from app.web.middleware.login_admission import LoginAdmissionMiddleware
from app.web.middleware.request_context import RequestContextMiddleware
from app.web.middleware.retry import RetryMiddleware
from app.web.middleware.timeout import TimeoutMiddleware
from app.web.middleware.trusted_hosts import TrustedHostsMiddleware
from app.web.route_index import RouteIndex


def create_app(
    settings: Settings | None = None,
    *,
    passwords: Passwords | None = None,
    resources: Sequence[Resource] = RESOURCES,
) -> FastAPI:
    """Return the application for some settings (default: the environment's), with its resources.

    Connect to nothing before the first request. End the process on unsafe settings.
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
    _add_state(app, settings, passwords or Passwords(), telemetry)
    problems.register(app)
    rate_limits.count_unread(app)
    app.add_exception_handler(Forbidden, access_denied.forbidden_response)
    app.add_exception_handler(ReplayResponse, idempotency.replay)
    i18n.add_directories(each.locales for each in resources if each.locales)
    permissions = [name for each in resources for name in each.permissions]
    openapi.install(app, tags=tags_of(resources), permissions=permissions)
    _add_routes(app, settings, [each.router for each in resources])
    _add_middleware(app, settings)
    return app


def _add_state(
    app: FastAPI, settings: Settings, passwords: Passwords, telemetry: Telemetry
) -> None:
    """Create what lives as long as the app; `close_app` closes it."""
    state = app.state
    state.settings = settings
    state.database = engine.connect(settings)
    state.passwords = passwords
    state.tokens = AccessTokens(
        settings.keys, settings.key_pairs, minutes=settings.access_token_minutes
    )
    state.query_runner = open_query_runner(state.database)
    state.transaction_runner = open_transaction_runner(state.database)
    state.readiness = Readiness(state.database, settings)
    state.paginator = Paginator(state.query_runner, CursorSigner(settings.keys))
    state.authenticator = TokenAuthenticator(state.query_runner, state.tokens)
    state.access_denied_log = AccessDeniedLog(state.database)
    state.rate_limiter = limiter.rate_limiter_of(settings)
    state.telemetry = telemetry
    telemetry.watch(state.database, state.query_runner)
    mailer = telemetry.counting(mailer_for(settings))
    state.dispatcher = outbox_runner_for(state.database, mailer, settings)


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
    settings: Settings = app.state.settings
    logging.configure(level=settings.log_level, as_json=settings.log_format is LogFormat.json)
    app.state.dispatcher.start()
    # The objects that exist by now stay: the collector need not walk them over and over.
    gc.collect()
    gc.freeze()
    # `server/serving.py` finds the app by it.
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
        closing.push_async_callback(state.query_runner.dispose)
        closing.push_async_callback(state.transaction_runner.dispose)
        closing.push_async_callback(state.paginator.totals.close)
        closing.push_async_callback(state.telemetry.close)
        closing.push_async_callback(state.readiness.close)
        closing.push_async_callback(state.rate_limiter.close)


def _telemetry(settings: Settings) -> Telemetry:
    if not settings.metrics_enabled:
        return Telemetry(settings)
    from app.observability.metrics import Metrics  # noqa: PLC0415 its libraries are not wanted otherwise

    return Metrics(settings)


def _operation_id(route: APIRoute) -> str:
    """Return the function's name: unique, short, and the method name in generated clients."""
    return route.name


def _add_routes(app: FastAPI, settings: Settings, routers: Sequence[APIRouter]) -> None:
    app.router.routes.insert(0, RouteIndex(route for router in routers for route in router.routes))
    for router in routers:
        app.include_router(router)
    if settings.metrics_enabled:
        app.include_router(operations.metrics_router)
    app.include_router(docs.errors_router)
    app.include_router(account_pages.router)
    if settings.docs_enabled:
        app.include_router(docs.docs_router)
        app.mount("/static/vendor", docs.vendor_assets)
    app.mount("/static", docs.own_assets)


def _add_middleware(app: FastAPI, settings: Settings) -> None:
    """Add the middlewares of `web/middleware/__init__.py`; the last one added runs first."""
    app.add_middleware(
        RetryMiddleware, is_transient=errors.is_transient, refusal_of=errors.refusal_of
    )
    app.add_middleware(LoginAdmissionMiddleware)
    app.add_middleware(TimeoutMiddleware, seconds=settings.request_timeout_seconds)
    app.add_middleware(BodySizeLimitMiddleware, limit=settings.max_body_bytes)
    if settings.cors_origins:
        app.add_middleware(
            CrossOriginMiddleware, origins=settings.cors_origins, headers=settings.cors_headers
        )
    if "*" not in settings.trusted_hosts:
        app.add_middleware(TrustedHostsMiddleware, hosts=settings.trusted_hosts)
    app.add_middleware(
        RequestContextMiddleware,
        access_log=settings.access_log,
        special_use_domains=settings.special_use_domains,
    )


def __getattr__(name: str) -> Any:
    """Create `app` for `uvicorn app.main:app`; importing this module alone reads no settings."""
    if name == "app":
        return create_app()
    raise AttributeError(name)
