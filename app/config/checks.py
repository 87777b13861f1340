"""Why settings are refused, in words for the operator."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from typing import TYPE_CHECKING

from sqlalchemy.engine import URL

from app.config.addresses import bring_into_form, unusable_mail
from app.config.choices import Pooler, SmtpTls
from app.config.entropy import MIN_SECRET_BYTES, is_guessable
from app.core.passwords import is_published, weaknesses
from app.core.redis_urls import is_redis_url
from app.core.validators import cover_a_family, is_base_url, is_network, is_token, signs
from app.db.urls import refuse_unusable

if TYPE_CHECKING:
    from app.config import Settings

# The name of the account that FIRST_ADMIN_PASSWORD is for.
FIRST_ADMIN_NAME = "Admin"


def _secrets(settings: Settings) -> Iterator[tuple[str, str]]:
    """Yield every secret, with the name of its setting."""
    yield "SECRET_KEY", settings.secret_key.get_secret_value()
    for secret in settings.secret_key_fallbacks:
        yield "SECRET_KEY_FALLBACKS", secret.get_secret_value()


def _unusable_secrets(settings: Settings) -> Iterator[str]:
    for name, secret in _secrets(settings):
        if not secret:
            yield f"{name} must not be empty"
        elif not signs(secret):
            yield f"{name} reads as JSON or as a public key: its tokens would never verify"
    if settings.secret_key in settings.secret_key_fallbacks:
        yield "SECRET_KEY_FALLBACKS must not repeat SECRET_KEY"


def _can_export_traces() -> bool:
    try:
        return find_spec("opentelemetry.exporter.otlp.proto.http") is not None
    # One of the packages above it is not there.
    except ModuleNotFoundError:
        return False


def always_unsafe(settings: Settings) -> list[str]:
    """Return why settings are refused that could never work or never be right, on any machine."""
    reasons = [*_unusable_secrets(settings)]
    if not all(map(is_token, settings.cors_headers)):
        reasons.append("CORS_HEADERS must list names of headers like X-Tenant, never '*'")
    proxies = settings.trusted_proxies
    if not all(map(is_network, proxies)) or cover_a_family(proxies):
        reasons.append("TRUSTED_PROXIES must list addresses or networks, never all of them")
    reasons += [*bring_into_form(settings), *unusable_mail(settings)]
    if settings.redis_url and not is_redis_url(settings.redis_url):
        reasons.append("REDIS_URL must be a URL like redis://host:6379/0, or rediss:// for TLS")
    # Our own one may have the port 0, for any that is free.
    if settings.public_url != settings.own_url and not is_base_url(settings.public_url):
        reasons.append("PUBLIC_URL must be http:// or https://, a host and at most a port")
    if settings.metrics_enabled and settings.workers > 1:
        reasons.append(
            "METRICS_ENABLED tells of one process: set WORKERS=1 and run several servers"
        )
    if settings.traces_enabled and not _can_export_traces():
        reasons.append("TRACES_ENABLED needs the package opentelemetry-exporter-otlp-proto-http")
    return [*reasons, *_unusable_databases(settings)]


def _unusable_databases(settings: Settings) -> Iterator[str]:
    try:
        refuse_unusable(settings.database_url)
        yield from _unnamed(settings.url)
    except ValueError as error:
        yield str(error)
        return
    kind = settings.url.get_backend_name()
    if settings.database_pooler is not Pooler.none and kind != "postgresql":
        yield "DATABASE_POOLER is for PostgreSQL alone"
    try:
        refuse_unusable(settings.database_direct_url or settings.database_url)
    except ValueError as error:
        yield str(error).replace("DATABASE_URL", "DATABASE_DIRECT_URL")
        return
    if settings.direct_url.get_backend_name() != kind:
        yield "DATABASE_DIRECT_URL must lead to the database of DATABASE_URL, past a pooler"


def unsafe_in_production(settings: Settings) -> list[str]:
    """Return why settings are refused where other people depend on them."""
    reasons = []
    for name, secret in _secrets(settings):
        if is_guessable(secret):
            reasons.append(
                f"{name} must be at least {MIN_SECRET_BYTES} random bytes, no words or patterns"
            )
        if "change" in secret.lower():
            reasons.append(f"{name} still holds an example value")
    if settings.smtp_password and settings.smtp_tls is SmtpTls.none:
        reasons.append("SMTP_PASSWORD would be sent in the clear: set SMTP_TLS")
    # What is derived when none is given is never https://.
    if settings.smtp_host and not settings.public_url.startswith("https://"):
        reasons.append("PUBLIC_URL must be the https:// URL that links in mails lead to")
    if settings.workers > 1 and settings.database_url.startswith("sqlite"):
        reasons.append("SQLite serves one worker: set WORKERS=1 or another DATABASE_URL")
    if not (settings.rate_limit_enabled or settings.rate_limit_disabled_on_purpose):
        reasons.append(
            "RATE_LIMIT_ENABLED=false lets everybody try passwords without end: set it to true,"
            " or RATE_LIMIT_DISABLED_ON_PURPOSE=true as well"
        )
    if _has_weak_admin(settings):
        reasons.append("FIRST_ADMIN_PASSWORD is a weak, a default or a published password")
    return reasons


def _has_weak_admin(settings: Settings) -> bool:
    if settings.first_admin_password is None:
        return False
    password = settings.first_admin_password.get_secret_value()
    return is_published(password) or bool(
        weaknesses(password, settings.password_policy, settings.first_admin_email, FIRST_ADMIN_NAME)
    )


def _unnamed(url: URL) -> Iterator[str]:
    """Yield the reason against a database without a usable name."""
    if url.get_backend_name() == "mysql" and not (url.database or "read_default_file" in url.query):
        yield "DATABASE_URL must name a database: mysql://user:password@host/name"
    if "\0" in (url.database or ""):
        yield "DATABASE_URL must name a file that there can be"
