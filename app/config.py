"""Settings: read once from the environment or `.env`, refused when they are unsafe."""

from __future__ import annotations

import json
import re
import secrets
from contextlib import suppress
from email.errors import HeaderParseError
from email.headerregistry import Address
from email.utils import parseaddr
from enum import StrEnum
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from app.core.passwords import Policy, weaknesses
from app.core.security import AccessTokens

ASYNC_DRIVERS = {
    "sqlite": "sqlite+aiosqlite",
    "mysql": "mysql+aiomysql",
    "mariadb": "mysql+aiomysql",
    "postgres": "postgresql+psycopg",
    "postgresql": "postgresql+psycopg",
}
_ORIGIN = re.compile(r"https?://[A-Za-z0-9.\[\]:-]+")
_BASE_URL = re.compile(r"https?://[^\s/?#]+(/[^\s?#]*)?")
MIN_SECRET_BYTES = 32
MIN_SECRET_ALPHABET = 8


class Environment(StrEnum):
    """Where the app runs; everything but development refuses unsafe settings."""

    development = "development"
    production = "production"


class SmtpTls(StrEnum):
    """How the connection to the SMTP server is encrypted."""

    none = "none"
    starttls = "starttls"
    tls = "tls"


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
    data_dir: Path = Path("data")
    # Its URL may hold a password: kept out of what is printed of the settings.
    database_url: str = Field("", repr=False)
    database_pool_size: int = Field(10, ge=1, le=500)
    request_timeout_seconds: float = Field(4.5, gt=0, le=300)
    secret_key: SecretStr = SecretStr("")
    first_admin_email: str = "admin@example.com"
    first_admin_password: Annotated[SecretStr | None, BeforeValidator(_none_if_blank)] = None
    registration_enabled: bool = True
    password_policy: Policy = Policy.classic
    access_token_minutes: int = Field(15, ge=1, le=1440)
    session_days: int = Field(30, ge=1, le=366)
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
    public_url: str = "http://127.0.0.1:8000"
    trash_days: int = Field(30, ge=0)
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    log_format: LogFormat = LogFormat.json
    access_log: bool = True
    docs_enabled: bool = True

    @property
    def in_development(self) -> bool:
        """Whether the comforts of a developer's machine are on."""
        return self.environment is Environment.development

    @property
    def url(self) -> URL:
        """The database URL, with the async driver the app speaks through."""
        return _async_url(self.database_url)

    @property
    def mail_dir(self) -> Path:
        """Where mails are kept as `.eml` files while no SMTP server is configured."""
        return self.data_dir / "mail"

    @model_validator(mode="after")
    def _fill_in_and_refuse(self) -> Self:
        if not self.database_url:
            self.database_url = f"sqlite+aiosqlite:///{self.data_dir}/cimiento.db"
        self.public_url = self.public_url.rstrip("/")
        if not self.secret_key.get_secret_value() and self.in_development:
            self.secret_key = SecretStr(_kept_secret(self.data_dir))
        reasons = list(_always_unsafe(self))
        if not self.in_development:
            reasons += _unsafe_in_production(self)
        if reasons:
            raise ValueError("; ".join(reasons))
        return self


def _async_url(raw: str) -> URL:
    url = make_url(raw)
    name = url.drivername
    return url.set(drivername=ASYNC_DRIVERS.get(name, name))


def _kept_secret(data_dir: Path) -> str:
    """Generate the development secret once, so that a restart logs nobody out."""
    path = data_dir / "secret.key"
    if not path.exists():
        data_dir.mkdir(parents=True, exist_ok=True)
        draft = data_dir / f"secret.{secrets.token_hex(8)}"
        draft.touch(mode=0o600)
        draft.write_text(secrets.token_urlsafe(48))
        # Linked when whole: of processes that start together all read the same, none half of it.
        with suppress(FileExistsError):
            path.hardlink_to(draft)
        draft.unlink()
    return path.read_text().strip()


def _signs(secret: str) -> bool:
    """Whether a token signed with a secret verifies: not if it reads as JSON or as a public key,
    which the JWT library takes for another kind of key."""
    tokens = AccessTokens(secret, minutes=1)
    try:
        json.loads(secret)
    except ValueError:
        pass
    else:
        return False
    try:
        tokens.verify(tokens.issue(user_id=1, session_id=1))
    except Exception:  # noqa: BLE001 the library raises what it likes
        return False
    return True


def _is_network(text: str) -> bool:
    """Whether this is an address or a network, but not all of them."""
    try:
        return ip_network(text, strict=False).prefixlen > 0
    except ValueError:
        return False


def _is_mailbox(text: str) -> bool:
    """Whether mails can be sent from here: `name@host` or `Name <name@host>`."""
    try:
        return bool(Address(addr_spec=parseaddr(text)[1]).domain)
    except (ValueError, IndexError, HeaderParseError):
        return False


def _always_unsafe(settings: Settings) -> list[str]:
    """Settings that could never work or never be right, on any machine."""
    reasons = []
    if not _signs(settings.secret_key.get_secret_value()):
        reasons.append("SECRET_KEY reads as JSON or as a public key: its tokens would never verify")
    if not all(map(_ORIGIN.fullmatch, settings.cors_origins)):
        reasons.append("CORS_ORIGINS must list origins like https://app.example.com, never '*'")
    if not all(map(_is_network, settings.trusted_proxies)):
        reasons.append("TRUSTED_PROXIES must list addresses or networks, never all of them")
    if not _is_mailbox(settings.mail_from):
        reasons.append("MAIL_FROM must be an address, like Cimiento <no-reply@example.com>")
    if not _BASE_URL.fullmatch(settings.public_url):
        reasons.append("PUBLIC_URL must be an http:// or https:// URL")
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
    secret = settings.secret_key.get_secret_value()
    if len(secret.encode()) < MIN_SECRET_BYTES or len(set(secret)) < MIN_SECRET_ALPHABET:
        reasons.append(f"SECRET_KEY must be at least {MIN_SECRET_BYTES} random bytes")
    if settings.smtp_password and settings.smtp_tls is SmtpTls.none:
        reasons.append("SMTP_PASSWORD would be sent in the clear: set SMTP_TLS")
    if "change" in secret.lower():
        reasons.append("SECRET_KEY still holds an example value")
    if settings.workers > 1 and settings.database_url.startswith("sqlite"):
        reasons.append("SQLite serves one worker: set WORKERS=1 or another DATABASE_URL")
    password = settings.first_admin_password
    if password and weaknesses(
        password.get_secret_value(), settings.password_policy, settings.first_admin_email
    ):
        reasons.append("FIRST_ADMIN_PASSWORD is a weak or a default password")
    return reasons


def load_settings(**overrides: Any) -> Settings:
    """Read the settings, or end the process with one clear line (exit status 1).

    Values are never printed: a line about a secret must not show it.
    """
    try:
        return Settings(**overrides)
    except ValidationError as error:
        lines = [_explain(entry) for entry in error.errors(include_url=False, include_input=False)]
        raise SystemExit(f"cimiento: refusing to start: {'; '.join(lines)}") from None


def _explain(entry: Any) -> str:
    name = ".".join(str(part) for part in entry["loc"]).upper()
    message = str(entry["msg"]).removeprefix("Value error, ")
    return f"{name}: {message}" if name else message
