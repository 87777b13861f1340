"""What is counted and traced for operators: nothing, unless the settings ask for it.

`observability/metrics.py` does the counting. The SDK of OpenTelemetry is imported where it is used:
it takes 2 MiB and 50 ms.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from app import __version__
from app.config import Settings
from app.db.engine import Database
from app.db.queries import QueryRunner
from app.rate_limits.limiter import RateLimitAttempt
from app.tasks.mail import Mailer

if TYPE_CHECKING:
    from fastapi.telemetry import TelemetryConfig
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider

# Of monitoring itself: many, and quick.
_EXCLUDED_PATHS = ("/metrics", "/health")


class Telemetry:
    """Counts nothing."""

    def __init__(self, settings: Settings) -> None:
        self.config: TelemetryConfig = {
            "metrics": False,
            "tracing": settings.traces_enabled,
            # By FastAPI's own environment variable too: then there is one switch, ours.
            "auto_configure": settings.traces_enabled,
            # Its log records hold the texts of exceptions, and those may hold anything.
            "logs": False,
            "operation_spans": False,
            "exclude": lambda scope: scope["path"].startswith(_EXCLUDED_PATHS),
        }
        if settings.traces_enabled:
            self.config["tracer_provider"] = _tracer_provider()

    def watch(self, database: Database, reader: QueryRunner) -> None:
        """Measure a database and its outbox."""

    def counting(self, mailer: Mailer) -> Mailer:
        """Return a mailer that counts what becomes of its mails."""
        return mailer

    def attempted(self, attempt: RateLimitAttempt, error: BaseException | None) -> None:
        """Count an attempt at a limited action; `error` is what it ended with."""

    async def close(self) -> None:
        """Stop counting."""


def resource() -> Resource:
    """Return the source of metrics and traces; OTEL_RESOURCE_ATTRIBUTES may add to it."""
    from opentelemetry.sdk.resources import Resource  # noqa: PLC0415 see above

    return Resource.create({"service.name": "cimiento", "service.version": __version__})


def _tracer_provider() -> TracerProvider:
    """Return a provider of this app alone. FastAPI adds the exporter of the OTEL_ variables."""
    from opentelemetry.sdk.trace import (  # noqa: PLC0415 see above
        Span,
        SpanProcessor,
        TracerProvider,
    )

    class WithoutQueries(SpanProcessor):
        """Query strings hold what people search for: no log has them, nor has a trace."""

        def on_start(self, span: Span, parent_context: object = None) -> None:  # noqa: ARG002
            if "url.query" in (span.attributes or {}):
                span.set_attribute("url.query", "REDACTED")

    provider = TracerProvider(resource=resource(), shutdown_on_exit=False)
    provider.add_span_processor(WithoutQueries())
    return provider
