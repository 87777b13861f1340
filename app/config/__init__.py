"""Settings: read once from the environment or `.env`, refused when they are unsafe."""

from __future__ import annotations

import json
import re
from functools import cached_property
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
from pydantic_settings import (
    BaseSettings,
    DotEnvSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)
from sqlalchemy.engine import URL

from app.config.checks import always_unsafe, unsafe_in_production
from app.config.choices import Environment, LogFormat, Pooler, SmtpTls, TokenAlgorithm
from app.config.dotenv import DotenvError, DotenvSource
from app.core import addresses, key_files
from app.core.key_pairs import KeyPair
from app.core.keyring import SecretKeys
from app.core.passwords import Policy
from app.db.urls import database_url

__all__ = [
    "Environment",
    "LogFormat",
    "Pooler",
    "Settings",
    "SmtpTls",
    "TokenAlgorithm",
    "load_settings",
    "read_settings",
    "refuse_memory",
]
# A bracketed address is no list in JSON.
_BRACKETED = re.compile(r"\s*\[[0-9A-Fa-f:.]+\]")


def _split(value: object) -> object:
    """Accept `a, b` beside a JSON list, as people write both into `.env` files."""
    if not isinstance(value, str):
        return value
    if value.lstrip().startswith("[") and not _BRACKETED.match(value):
        return json.loads(value)
    return [part.strip() for part in value.split(",") if part.strip()]


def _none_if_blank(value: object) -> object:
    return None if value == "" else value


def _upper(value: object) -> object:
    return value.upper() if isinstance(value, str) else value


CommaList = Annotated[list[str], NoDecode, BeforeValidator(_split)]
Days = Annotated[int, Field(ge=0, le=36_500)]


class Settings(BaseSettings):
    """Every setting of the product; `.env.example` explains each.

    Source: environment variables, then `.env` in the working directory.
    """

    model_config = SettingsConfigDict(
        # No file at all: it would be read before ours is asked.
        env_file="",
        extra="ignore",
        hide_input_in_errors=True,
        env_ignore_empty=True,
    )

    environment: Environment = Environment.development
    host: str = "127.0.0.1"
    port: int = Field(8000, ge=0, le=65535)
    workers: int = Field(1, ge=1, le=64)
    shutdown_delay_seconds: float = Field(0, ge=0, le=60)
    data_dir: Path = Path("data")
    # Its URL may hold a password: kept out of what is printed of the settings.
    database_url: str = Field("", repr=False)
    database_direct_url: str = Field("", repr=False)
    database_pooler: Pooler = Pooler.none
    database_pool_size: int = Field(10, ge=1, le=500)
    request_timeout_seconds: float = Field(4.5, gt=0, le=300)
    secret_key: SecretStr = SecretStr("")
    secret_key_fallbacks: Annotated[list[SecretStr], NoDecode, BeforeValidator(_split)] = []
    token_algorithm: TokenAlgorithm = TokenAlgorithm.hs256
    first_admin_email: str = "admin@example.com"
    first_admin_password: Annotated[SecretStr | None, BeforeValidator(_none_if_blank)] = None
    registration_enabled: bool = True
    special_use_domains: CommaList = []
    password_policy: Policy = Policy.classic
    access_token_minutes: int = Field(15, ge=1, le=1440)
    refresh_token_days: int = Field(30, ge=1, le=366)
    session_days: int = Field(180, ge=1, le=3650)
    refresh_grace_seconds: int = Field(10, ge=0, le=300)
    rate_limit_enabled: bool = True
    rate_limit_disabled_on_purpose: bool = False
    posts_per_minute: int = Field(600, ge=0, le=1_000_000)
    # It may hold a password too.
    redis_url: str | None = Field(None, repr=False)
    cors_origins: CommaList = []
    cors_headers: CommaList = []
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
    trash_days: Days = 30
    outbox_days: Days = 30
    audit_days: Days = 365
    log_level: Annotated[Literal["DEBUG", "INFO", "WARNING", "ERROR"], BeforeValidator(_upper)] = (
        "INFO"
    )
    log_format: LogFormat = LogFormat.json
    access_log: bool = True
    # None only until it is filled in: by the environment.
    docs_enabled: bool | None = None
    metrics_enabled: bool = False
    traces_enabled: bool = False

    _keeps_secret: bool = PrivateAttr(default=False)
    _has_database_url: bool = PrivateAttr(default=True)

    @property
    def in_development(self) -> bool:
        """Return whether the comforts of a developer's machine are on."""
        return self.environment is Environment.development

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read `.env` in our way."""
        assert isinstance(dotenv_settings, DotEnvSettingsSource)
        given = dotenv_settings.env_file
        ours = DotenvSource(settings_cls, env_file=".env" if given == "" else given)
        return init_settings, env_settings, ours, file_secret_settings

    @property
    def own_url(self) -> str:
        """Return where a browser on this machine finds the server."""
        return addresses.server_url(self.host, self.port)

    @property
    def url(self) -> URL:
        """Return the database URL, with the async driver that the app uses."""
        return database_url(self.database_url)

    @property
    def direct_url(self) -> URL:
        """Return the database URL past a pooler, for what is bound to a session."""
        return database_url(self.database_direct_url or self.database_url)

    @property
    def keys(self) -> SecretKeys:
        """Return the secrets, newest first."""
        every = [self.secret_key, *self.secret_key_fallbacks]
        return SecretKeys([secret.get_secret_value() for secret in every])

    @property
    def keeps_secret(self) -> bool:
        """Return whether the newest secret is the one stored under DATA_DIR, not a given one."""
        return self._keeps_secret

    @property
    def has_database_url(self) -> bool:
        """Return whether the database was named, and is not the one under DATA_DIR."""
        return self._has_database_url

    @cached_property
    def key_pairs(self) -> list[KeyPair]:
        """Return the key pairs, newest first; in development, generate one. None with HS256.

        Raise ValueError, with a text for the operator, if they are missing or not usable.
        """
        if self.token_algorithm is TokenAlgorithm.hs256:
            return []
        pairs = key_files.pairs_in(self.data_dir, make=self.in_development)
        if not pairs:
            raise ValueError(
                f"TOKEN_ALGORITHM=ES256 needs a key pair in {self.data_dir}/keys:"
                " scripts/rotate-key makes one (SECRET_KEY may stay, whatever it prints)"
            )
        return pairs

    @property
    def mail_dir(self) -> Path:
        """Return where mails are stored as `.eml` files while no SMTP server is configured."""
        return self.data_dir / "mail"

    @model_validator(mode="after")
    def _fill_in_and_refuse(self) -> Self:
        if not self.database_url:
            self._has_database_url = False
            # From its parts: a path may hold what means something in a URL.
            own = URL.create("sqlite+aiosqlite", database=str(self.data_dir / "cimiento.db"))
            self.database_url = own.render_as_string(hide_password=False)
        # Brackets belong to URLs; what is mapped into IPv6 is an address of IPv4.
        self.host = addresses.unmapped(self.host.removeprefix("[").removesuffix("]"))
        # Scheme and host mean the same in either case; what else a URL may hold is refused.
        given = self.public_url.lower() or self.own_url
        self.public_url = given.removesuffix("/")
        if self.docs_enabled is None:
            self.docs_enabled = self.in_development
        if not self.secret_key.get_secret_value() and self.in_development:
            self._read_kept_secrets()
        reasons = list(always_unsafe(self))
        if not self.in_development:
            reasons += unsafe_in_production(self)
        if reasons:
            raise ValueError("; ".join(dict.fromkeys(reasons)))
        return self

    def _read_kept_secrets(self) -> None:
        # An empty file is refused as an empty SECRET_KEY is.
        newest, *older = map(SecretStr, key_files.secrets_in(self.data_dir) or [""])
        self._keeps_secret = True
        self.secret_key = newest
        self.secret_key_fallbacks = [*self.secret_key_fallbacks, *older]


def load_settings(**overrides: Any) -> Settings:
    """Read the settings and their keys, or end the process with one clear line (exit status 1).

    Values are never printed: a line about a secret must not show it.
    """
    settings = read_settings(**overrides)
    refuse_memory(settings)
    try:
        settings.key_pairs  # noqa: B018 read now: a refusal must come before anything is served
    except ValueError as error:
        raise _refused(str(error)) from None
    except OSError as error:
        raise _refused(f"the key pairs of DATA_DIR cannot be read: {_reason(error)}") from None
    return settings


def read_settings(**overrides: Any) -> Settings:
    """Read the settings without the key pairs, which may not exist yet."""
    try:
        return Settings(**overrides)
    except ValidationError as error:
        lines = [_explain(entry) for entry in error.errors(include_url=False, include_input=False)]
        raise _refused("; ".join(lines)) from None
    except (DotenvError, SettingsError) as error:
        raise _refused(str(error)) from None
    except OSError as error:
        raise _refused(f"DATA_DIR cannot be used: {_reason(error)}") from None


def refuse_memory(settings: Settings) -> None:
    """End the process if the database is no file: each connection would have one of its own."""
    url, given = settings.url, settings.database_url
    is_memory = (url.database or "") in {"", ":memory:"} or ":memory:?" in given
    if url.get_backend_name() == "sqlite" and (is_memory or "mode=memory" in given):
        raise _refused("DATABASE_URL must name a file, like sqlite:////srv/cimiento.db")


def _refused(reasons: str) -> SystemExit:
    """Return the end of the process, in one line: values and paths may hold line breaks."""
    return SystemExit("cimiento: refusing to start: " + " ".join(reasons.split()))


def _reason(error: OSError) -> str:
    """Return an error of the system with the path it is about, without its number."""
    reason = "is no folder" if isinstance(error, FileExistsError) else error.strerror
    return f"{error.filename}: {reason}" if error.filename else str(error)


def _explain(entry: Any) -> str:
    name = ".".join(str(part) for part in entry["loc"]).upper()
    message = str(entry["msg"]).removeprefix("Value error, ")
    return f"{name}: {message}" if name else message
