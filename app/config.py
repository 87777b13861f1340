"""Settings: read once from the environment or `.env`, refused when they are unsafe."""

from __future__ import annotations

import json
from collections.abc import Iterator
from enum import StrEnum
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BeforeValidator,
    Field,
    PrivateAttr,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from app import keyfiles
from app.core.counters import is_redis_url
from app.core.entropy import MIN_SECRET_BYTES, is_guessable
from app.core.keypairs import KeyPair
from app.core.keys import SecretKeys
from app.core.passwords import Policy, is_published, weaknesses
from app.core.plausible import (
    cover_a_family,
    is_base_url,
    is_mailbox,
    is_network,
    is_origin,
    signs,
)

ASYNC_DRIVERS = {
    "sqlite": "sqlite+aiosqlite",
    "mysql": "mysql+aiomysql",
    "mariadb": "mysql+aiomysql",
    "postgres": "postgresql+psycopg",
    "postgresql": "postgresql+psycopg",
}
_EVERY_INTERFACE = ("0.0.0.0", "::")  # noqa: S104 compared with, not bound to
# The name of the account that FIRST_ADMIN_PASSWORD is for.
FIRST_ADMIN_NAME = "Admin"


class Environment(StrEnum):
    """Where the app runs; everything but development refuses unsafe settings."""

    development = "development"
    production = "production"


class SmtpTls(StrEnum):
    """How the connection to the SMTP server is encrypted."""

    none = "none"
    starttls = "starttls"
    tls = "tls"


class TokenAlgorithm(StrEnum):
    """What signs access tokens: the secret, or a key pair whose public half anybody may have."""

    hs256 = "HS256"
    es256 = "ES256"


class LogFormat(StrEnum):
    """One JSON object a line for machines, or plain lines for a terminal."""

    json = "json"
    console = "console"


def _split(value: object) -> object:
    """Accept `a, b` beside a JSON list, as people write both into `.env` files."""
    if not isinstance(value, str):
        return value
    if value.lstrip().startswith("["):
        return json.loads(value)
    return [part.strip() for part in value.split(",") if part.strip()]


def _none_if_blank(value: object) -> object:
    return None if value == "" else value


CommaList = Annotated[list[str], NoDecode, BeforeValidator(_split)]


class Settings(BaseSettings):
    """Every setting of the product; `.env.example` explains each.

    Source: environment variables, then `.env` in the working directory.
    """

    model_config = SettingsConfigDict(
        env_file=".env", extra="ignore", hide_input_in_errors=True, env_ignore_empty=True
    )

    environment: Environment = Environment.development
    host: str = "127.0.0.1"
    port: int = Field(8000, ge=0, le=65535)
    workers: int = Field(1, ge=1, le=64)
    shutdown_delay_seconds: float = Field(0, ge=0, le=60)
    data_dir: Path = Path("data")
    # Its URL may hold a password: kept out of what is printed of the settings.
    database_url: str = Field("", repr=False)
    database_pool_size: int = Field(10, ge=1, le=500)
    request_timeout_seconds: float = Field(4.5, gt=0, le=300)
    secret_key: SecretStr = SecretStr("")
    secret_key_fallbacks: Annotated[list[SecretStr], NoDecode, BeforeValidator(_split)] = []
    token_algorithm: TokenAlgorithm = TokenAlgorithm.hs256
    first_admin_email: str = "admin@example.com"
    first_admin_password: Annotated[SecretStr | None, BeforeValidator(_none_if_blank)] = None
    registration_enabled: bool = True
    password_policy: Policy = Policy.classic
    access_token_minutes: int = Field(15, ge=1, le=1440)
    refresh_token_days: int = Field(30, ge=1, le=366)
    session_days: int = Field(180, ge=1, le=3650)
    refresh_grace_seconds: int = Field(10, ge=0, le=300)
    rate_limit_enabled: bool = True
    rate_limit_disabled_on_purpose: bool = False
    posts_per_minute: int = Field(600, ge=0)
    # It may hold a password too.
    redis_url: str | None = Field(None, repr=False)
    cors_origins: CommaList = []
    trusted_hosts: CommaList = ["*"]
    trusted_proxies: CommaList = []
    max_body_bytes: int = Field(262_144, ge=1024)
    smtp_host: str | None = None
    smtp_port: int = Field(587, ge=1, le=65535)
    smtp_username: str | None = None
    smtp_password: SecretStr | None = None
    smtp_tls: SmtpTls = SmtpTls.starttls
    smtp_timeout_seconds: float = Field(20, gt=0, le=40)
    mail_from: str = "Cimiento <no-reply@example.com>"
    public_url: str = ""
    trash_days: int = Field(30, ge=0)
    outbox_days: int = Field(30, ge=0)
    audit_days: int = Field(365, ge=0)
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    log_format: LogFormat = LogFormat.json
    access_log: bool = True
    # None only until it is filled in: by the environment.
    docs_enabled: bool | None = None
    metrics_enabled: bool = False
    traces_enabled: bool = False

    _keeps_secret: bool = PrivateAttr(default=False)

    @property
    def in_development(self) -> bool:
        """Whether the comforts of a developer's machine are on."""
        return self.environment is Environment.development

    @property
    def url(self) -> URL:
        """The database URL, with the async driver the app speaks through."""
        return _async_url(self.database_url)

    @property
    def keys(self) -> SecretKeys:
        """The secrets, newest first."""
        every = [self.secret_key, *self.secret_key_fallbacks]
        return SecretKeys([secret.get_secret_value() for secret in every])

    @property
    def keeps_secret(self) -> bool:
        """Whether the newest secret is the one kept under DATA_DIR, not one that was given."""
        return self._keeps_secret

    @cached_property
    def key_pairs(self) -> list[KeyPair]:
        """The key pairs, newest first, made in development; none with HS256.

        ValueError, with a text for the operator, when they are missing or not usable.
        """
        if self.token_algorithm is TokenAlgorithm.hs256:
            return []
        pairs = keyfiles.pairs_in(self.data_dir, make=self.in_development)
        if not pairs:
            raise ValueError(
                f"TOKEN_ALGORITHM=ES256 needs a key pair in {self.data_dir}/keys:"
                " scripts/rotate-key makes one (SECRET_KEY may stay, whatever it prints)"
            )
        return pairs

    @property
    def mail_dir(self) -> Path:
        """Where mails are kept as `.eml` files while no SMTP server is configured."""
        return self.data_dir / "mail"

    @model_validator(mode="after")
    def _fill_in_and_refuse(self) -> Self:
        if not self.database_url:
            self.database_url = f"sqlite+aiosqlite:///{self.data_dir}/cimiento.db"
        # Scheme and host mean the same in either case; what else a URL may hold is refused.
        given = self.public_url.lower() or _own_url(self.host, self.port)
        self.public_url = given.removesuffix("/")
        if self.docs_enabled is None:
            self.docs_enabled = self.in_development
        if not self.secret_key.get_secret_value() and self.in_development:
            self._read_kept_secrets()
        reasons = list(_always_unsafe(self))
        if not self.in_development:
            reasons += _unsafe_in_production(self)
        if reasons:
            raise ValueError("; ".join(dict.fromkeys(reasons)))
        return self

    def _read_kept_secrets(self) -> None:
        # An empty file is refused as an empty SECRET_KEY is.
        newest, *older = map(SecretStr, keyfiles.secrets_in(self.data_dir) or [""])
        self._keeps_secret = True
        self.secret_key = newest
        self.secret_key_fallbacks = [*self.secret_key_fallbacks, *older]


def _own_url(host: str, port: int) -> str:
    """Where a browser on this machine finds a server that listens there."""
    name = "127.0.0.1" if host in _EVERY_INTERFACE else host
    return f"http://[{name}]:{port}" if ":" in name else f"http://{name}:{port}"


def _async_url(raw: str) -> URL:
    url = make_url(raw)
    name = url.drivername
    return url.set(drivername=ASYNC_DRIVERS.get(name, name))


def _secrets(settings: Settings) -> Iterator[tuple[str, str]]:
    """Every secret, with the name of its setting."""
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


def _always_unsafe(settings: Settings) -> list[str]:
    """Settings that could never work or never be right, on any machine."""
    reasons = [*_unusable_secrets(settings)]
    if not all(map(is_origin, settings.cors_origins)):
        reasons.append("CORS_ORIGINS must list origins like https://app.example.com, never '*'")
    proxies = settings.trusted_proxies
    if not all(map(is_network, proxies)) or cover_a_family(proxies):
        reasons.append("TRUSTED_PROXIES must list addresses or networks, never all of them")
    if not is_mailbox(settings.mail_from):
        reasons.append("MAIL_FROM must be an address, like Cimiento <no-reply@example.com>")
    if settings.redis_url and not is_redis_url(settings.redis_url):
        reasons.append("REDIS_URL must be a URL like redis://host:6379/0, or rediss:// for TLS")
    # Our own one may have the port 0, for any that is free.
    is_own = settings.public_url == _own_url(settings.host, settings.port)
    if not is_own and not is_base_url(settings.public_url):
        reasons.append("PUBLIC_URL must be http:// or https://, a host and at most a port")
    if settings.metrics_enabled and settings.workers > 1:
        reasons.append(
            "METRICS_ENABLED tells of one process: set WORKERS=1 and run several servers"
        )
    if settings.traces_enabled and not _can_export_traces():
        reasons.append("TRACES_ENABLED needs the package opentelemetry-exporter-otlp-proto-http")
    try:
        driver = _async_url(settings.database_url).drivername
    # A port that is no number is a ValueError, with a part of the URL in its text.
    except (ArgumentError, ValueError):
        driver = ""
    if driver not in ASYNC_DRIVERS.values():
        reasons.append(
            "DATABASE_URL must begin with sqlite://, mysql://, mariadb:// or postgresql://"
        )
    return reasons


def _unsafe_in_production(settings: Settings) -> list[str]:
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


def load_settings(**overrides: Any) -> Settings:
    """Read the settings and their keys, or end the process with one clear line (exit status 1).

    Values are never printed: a line about a secret must not show it.
    """
    settings = read_settings(**overrides)
    try:
        settings.key_pairs  # noqa: B018 read now: a refusal must come before anything is served
    except (ValueError, OSError) as error:
        raise _refused(str(error)) from None
    return settings


def read_settings(**overrides: Any) -> Settings:
    """The same without the key pairs, which may be yet to be made."""
    try:
        return Settings(**overrides)
    except ValidationError as error:
        lines = [_explain(entry) for entry in error.errors(include_url=False, include_input=False)]
        raise _refused("; ".join(lines)) from None
    except UnicodeDecodeError:
        raise _refused(f"{Settings.model_config['env_file']} is not UTF-8") from None


def _refused(reasons: str) -> SystemExit:
    """Return the end of the process, in one line: values and paths may hold line breaks."""
    return SystemExit("cimiento: refusing to start: " + " ".join(reasons.split()))


def _explain(entry: Any) -> str:
    name = ".".join(str(part) for part in entry["loc"]).upper()
    message = str(entry["msg"]).removeprefix("Value error, ")
    return f"{name}: {message}" if name else message
