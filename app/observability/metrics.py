"""Metrics in Prometheus' text format: of this process, and of the outbox in its database.

No label holds what callers send: actions, limits, states and results are enums, and routes are
templates. Every app has a registry of its own; nothing here is global.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from email.message import EmailMessage

from fastapi.exceptions import RequestValidationError
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.metrics import CallbackOptions, Counter, Observation
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.view import View
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.exposition import choose_encoder
from sqlalchemy.pool import QueuePool

from app.config import Settings
from app.core.exceptions import AppError, TooManyRequests
from app.core.single_flight import SingleFlight
from app.crud import backlog
from app.crud.backlog import Backlog
from app.crud.outbox import Failure
from app.db.engine import Database
from app.db.queries import QueryRunner
from app.observability.telemetry import Telemetry, resource
from app.rate_limits.limiter import RateLimitAttempt
from app.rate_limits.outcomes import WRONG
from app.rate_limits.rules import LIMITS, LimitedAction
from app.tasks.mail import Mailer, NotSent

BACKLOG_SECONDS = 1.0
# However many scrape, and however often.
BACKLOG_KEEP_SECONDS = 5.0
_ATTEMPTS = ("ok", "wrong", "refused", "invalid", "failed")
_MAILS = ("sent", *Failure, "failed")
Observed = Iterator[Observation]


class Metrics(Telemetry):
    """What `GET /metrics` shows."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        reader = PrometheusMetricReader(scope_info_enabled=False, registry=self._registry)
        self._provider = MeterProvider([reader], resource(), shutdown_on_exit=False, views=_views())
        self.config["metrics"] = True
        self.config["meter_provider"] = self._provider
        self._meter = self._provider.get_meter("cimiento")
        self._attempts = self._counter(
            "attempts", "Tries at a door (login and its like), by what came of them."
        )
        self._hits = self._counter("limit.hits", "Tries that met a limit, by door and limit.")
        self._mails = self._counter("mails", "Tries of this process to send a mail, by result.")
        self._begin_at_0()
        self._turns = asyncio.Lock()
        self._backlog: SingleFlight[Backlog] | None = None
        self._known: Backlog | None = None

    def watch(self, database: Database, reader: QueryRunner) -> None:
        self._backlog = SingleFlight(
            lambda: backlog.measure(reader),
            seconds=BACKLOG_SECONDS,
            keep_seconds=BACKLOG_KEEP_SECONDS,
        )
        self._gauge("outbox.mails", "Mails in the outbox, by state; not those sent.", self._waiting)
        self._gauge("outbox.lag", "For how long the oldest due mail is due.", self._lag, unit="s")
        self._gauge(
            "database.connections",
            "Connections in the pool for writing or reading, used by requests or idle.",
            lambda: _connections(database),
        )
        self._gauge(
            "database.connections.max",
            "How many connections a pool may hold.",
            lambda: _sizes(database),
        )

    def counting(self, mailer: Mailer) -> Mailer:
        return _CountingMailer(mailer, lambda result: self._mails.add(1, {"result": result}))

    def attempted(self, attempt: RateLimitAttempt, error: BaseException | None) -> None:
        self._attempts.add(1, {"door": attempt.action, "result": _result(error)})
        if attempt.refused_by is not None:
            scope, _ = attempt.refused_by
            self._hits.add(1, {"door": attempt.action, "limit": scope})

    async def exposition(self, accept: str) -> tuple[bytes, str]:
        """Return every figure, in the format an `Accept` header asks for, and its content type.

        While the database does not answer, what is asked of it is missing.
        """
        assert self._backlog is not None
        encode, content_type = _format(accept)
        # The reader gives what it has collected to the next caller: one at a time may ask.
        async with self._turns:
            try:
                self._known = await self._backlog.answer()
            except Exception:  # noqa: BLE001 the other figures are wanted then more than ever
                self._known = None
            # Some thousand lines of text take longer than requests should wait.
            return await asyncio.to_thread(encode, self._registry), content_type

    async def close(self) -> None:
        assert self._backlog is not None
        await self._backlog.close()
        self._provider.shutdown()

    def _counter(self, name: str, description: str) -> Counter:
        return self._meter.create_counter(f"cimiento.{name}", description=description)

    def _gauge(
        self, name: str, description: str, observe: Callable[[], Observed], unit: str = ""
    ) -> None:
        def callback(_: CallbackOptions) -> Observed:
            return observe()

        self._meter.create_observable_gauge(f"cimiento.{name}", [callback], unit, description)

    def _begin_at_0(self) -> None:
        """Start all counters at 0: one that appears with its first event hides it from rates."""
        for action in LimitedAction:
            for result in _ATTEMPTS:
                self._attempts.add(0, {"door": action, "result": result})
            for scope in LIMITS[action]:
                self._hits.add(0, {"door": action, "limit": scope})
        for result in _MAILS:
            self._mails.add(0, {"result": result})

    def _waiting(self) -> Observed:
        if self._known is not None:
            for state, count in self._known.counts.items():
                yield Observation(count, {"state": state})

    def _lag(self) -> Observed:
        if self._known is not None:
            yield Observation(self._known.lag_seconds)


class _CountingMailer:
    """Hands mails on, and tells what became of them."""

    def __init__(self, mailer: Mailer, count: Callable[[str], None]) -> None:
        self._mailer = mailer
        self._count = count

    async def send(self, message: EmailMessage) -> None:
        result: str = "failed"
        try:
            await self._mailer.send(message)
            result = "sent"
        except NotSent as error:
            result = error.failure
            raise
        finally:
            self._count(result)


def _format(accept: str) -> tuple[Callable[[CollectorRegistry], bytes], str]:
    """Return the format that an `Accept` header asks for; Prometheus' default if it is invalid."""
    try:
        return choose_encoder(accept)
    # A version that is no number raises whatever comparing it happens to.
    except Exception:  # noqa: BLE001 see above
        return choose_encoder("")


def _views() -> list[View]:
    """Return the labels of the metrics of requests: each further one would multiply the lines."""
    by_route = {"http.route", "http.request.method", "http.response.status_code"}
    return [
        View(instrument_name="http.server.request.duration", attribute_keys=by_route),
        View(instrument_name="http.server.active_requests", attribute_keys={"http.request.method"}),
    ]


def _result(error: BaseException | None) -> str:
    match error:
        case None:
            return "ok"
        case TooManyRequests():
            return "refused"
        case AppError() if isinstance(error, WRONG):
            return "wrong"
        case RequestValidationError():
            return "invalid"
        case AppError(status_code=status) if status < 500:  # noqa: PLR2004 errors of ours
            return "invalid"
    return "failed"


def _pools(database: Database) -> Iterator[tuple[str, QueuePool]]:
    """Yield the pools by name; SQLite reads past the pool."""
    engines = {"write": database.engine, "read": database.reading}
    for name, engine in engines.items():
        pool = engine.pool
        if name == "write" or pool is not database.engine.pool:
            assert isinstance(pool, QueuePool)
            yield name, pool


def _connections(database: Database) -> Observed:
    for name, pool in _pools(database):
        yield Observation(pool.checkedout(), {"pool": name, "state": "used"})
        yield Observation(pool.checkedin(), {"pool": name, "state": "idle"})


def _sizes(database: Database) -> Observed:
    for name, pool in _pools(database):
        yield Observation(pool.size(), {"pool": name})
