"""Settings that are one of a few words."""

from __future__ import annotations

from enum import StrEnum


class Environment(StrEnum):
    """Where the app runs; everything but development refuses unsafe settings."""

    development = "development"
    production = "production"


class Pooler(StrEnum):
    """What stands between the app and PostgreSQL; with `none` each connection is looked at."""

    none = "none"
    session = "session"
    transaction = "transaction"


class SmtpTls(StrEnum):
    """How the connection to the SMTP server is encrypted."""

    none = "none"
    starttls = "starttls"
    tls = "tls"


class TokenAlgorithm(StrEnum):
    """What signs access tokens: the secret, or a key pair whose public half may be public."""

    hs256 = "HS256"
    es256 = "ES256"


class LogFormat(StrEnum):
    """One JSON object a line for machines, or plain lines for a terminal."""

    json = "json"
    console = "console"
