"""Redis and the mail server: whether they answer, and keep what they are given."""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable, Iterator, Mapping
from email.utils import parseaddr
from typing import Any
from urllib.parse import urlsplit

import aiosmtplib

from app.cli.doctor.findings import (
    Finding,
    Findings,
    advised,
    failure,
    good,
    judged,
    reason,
    warning,
)
from app.config import Settings, SmtpTls
from app.tasks.mail import NotSent, SmtpMailer

OLDEST_REDIS = 6
_FULL = 0.95


# --- Redis ---------------------------------------------------------------------------------------


async def check_redis(settings: Settings) -> Findings:
    """Check that Redis answers, and keeps what it is given."""
    if settings.redis_url is None:
        alone = settings.workers == 1
        return [
            advised(
                "redis",
                alone,
                "none: limits count in " + ("this process" if alone else "each worker alone"),
                "Set REDIS_URL, so that limits count over all workers.",
            )
        ]
    parts = urlsplit(settings.redis_url)
    where = f"{parts.hostname}:{parts.port or 6379}"
    try:
        info = await _info(settings.redis_url)
    # Its error tree and the system's; a frozen server is cut off by the caller.
    except Exception as error:  # noqa: BLE001 see above
        remedy = "See whether Redis runs there and REDIS_URL has the right host and password."
        return [failure("redis", f"{where}: {reason(error)}", remedy)]
    return [*_judged_redis(where, info)]


async def _info(url: str) -> dict[str, Any]:
    from redis.asyncio import Redis  # noqa: PLC0415 half a second, for those who use it

    client: Any = Redis.from_url(url)
    try:
        found: dict[str, Any] = await client.info()
    finally:
        await client.aclose()
    return found


def _judged_redis(where: str, info: Mapping[str, Any]) -> Iterator[Finding]:
    version = str(info["redis_version"])
    yield advised(
        "redis",
        int(version.partition(".")[0]) >= OLDEST_REDIS,
        f"Redis {version} at {where}",
        f"Upgrade to Redis {OLDEST_REDIS} or later.",
    )
    policy, limit = info["maxmemory_policy"], int(info["maxmemory"])
    message = f"maxmemory-policy is {policy}"
    remedy = "Jobs and limits may be thrown away: set maxmemory-policy noeviction in redis.conf."
    if limit:
        used = int(info["used_memory"])
        yield judged(
            "redis",
            used < limit * _FULL,
            f"{used / 2**20:.0f} of {limit / 2**20:.0f} MiB are used",
            "Full, it takes no jobs, and mails wait: raise maxmemory, or look what fills it.",
        )
        yield judged("redis", policy == "noeviction", message, remedy)
    else:
        yield advised("redis", policy == "noeviction", message, remedy)
    is_kept = bool(int(info["aof_enabled"]))
    yield advised(
        "redis",
        is_kept,
        f"appendonly is {'yes' if is_kept else 'no'}",
        "A restart forgets limits, and jobs until they are sent again: set appendonly yes.",
    )


# --- Mail ----------------------------------------------------------------------------------------


async def check_mail(settings: Settings) -> Findings:
    """Check connection, encryption and login of the mail server. Send nothing."""
    if settings.smtp_host is None:
        return [
            advised(
                "mail",
                settings.in_development,
                f"no SMTP_HOST: mails stay in the outbox and under {settings.mail_dir}",
                "Set SMTP_HOST and its like, or no mails are sent.",
            )
        ]
    where = f"{settings.smtp_host}:{settings.smtp_port}"
    try:
        await SmtpMailer(settings).greet()
    except NotSent as error:
        cause = error.__cause__ or error
        return [failure("mail", f"{where}: {reason(cause)}", _remedy(cause)), *_sender(settings)]
    login = "with" if settings.smtp_username else "without"
    answer = good("mail", f"{where} answers, SMTP_TLS={settings.smtp_tls}, {login} login")
    return [answer, *_sender(settings)]


def _remedy(error: BaseException) -> str:
    if isinstance(error, aiosmtplib.SMTPAuthenticationError):
        return "Set the SMTP_USERNAME and SMTP_PASSWORD that the server knows."
    # What the library has no better name for is STARTTLS or a login that is not offered.
    if isinstance(error.__cause__, ssl.SSLError) or type(error) is aiosmtplib.SMTPException:
        return "SMTP_TLS does not fit: starttls for port 587, tls for 465; a valid certificate."
    return "See whether SMTP_HOST and SMTP_PORT are right, and no firewall is in between."


def _sender(settings: Settings) -> Iterator[Finding]:
    address = parseaddr(settings.mail_from)[1]
    domain = address.rpartition("@")[2].lower()
    is_example = domain in {"example.com", "example.org", "localhost"}
    yield advised(
        "mail",
        not is_example,
        f"MAIL_FROM is {address}",
        "Set MAIL_FROM to an address of yours, or the mails count as forged.",
    )
    if settings.smtp_tls is SmtpTls.none and not settings.in_development:
        yield warning(
            "mail",
            "mails, with their links, are sent in the clear",
            "Set SMTP_TLS to starttls or tls, unless the server is on this machine or network.",
        )


Check = Callable[[Settings], Awaitable[Findings]]
CHECKS: Mapping[str, Check] = {"redis": check_redis, "mail": check_mail}
