"""What a check finds, and how checks are kept short and discreet."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any
from urllib.parse import quote, quote_plus, urlsplit

from sqlalchemy.exc import DBAPIError

from app.config import Settings

SECONDS = 5.0
_MAX_REASON = 200


class Verdict(StrEnum):
    """`fail`: it does not work, or data may be lost; `warn`: it works, but should be otherwise."""

    ok = "ok"
    warn = "warn"
    fail = "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """What is so, and what to do about it if it should not be."""

    verdict: Verdict
    check: str
    message: str
    remedy: str | None = None


Findings = list[Finding]


def good(check: str, message: str) -> Finding:
    return Finding(Verdict.ok, check, message)


def warning(check: str, message: str, remedy: str) -> Finding:
    return Finding(Verdict.warn, check, message, remedy)


def failure(check: str, message: str, remedy: str) -> Finding:
    return Finding(Verdict.fail, check, message, remedy)


def summed_up(found: Findings) -> str:
    """Return all findings in one line: `2 problems, 1 warning.`"""
    counts = Counter(each.verdict for each in found)
    named = ((counts[Verdict.fail], "problem"), (counts[Verdict.warn], "warning"))
    parts = [f"{count} {name}{'s' if count > 1 else ''}" for count, name in named if count]
    return f"{', '.join(parts)}." if parts else "All well."


def judged(check: str, is_good: bool, message: str, remedy: str) -> Finding:
    """Return a good finding, or a failure with its remedy."""
    return good(check, message) if is_good else failure(check, message, remedy)


def advised(check: str, is_good: bool, message: str, remedy: str) -> Finding:
    """Return a good finding, or a warning with its remedy."""
    return good(check, message) if is_good else warning(check, message, remedy)


class Secrets:
    """Everything the settings keep to themselves."""

    def __init__(self, settings: Settings) -> None:
        given = [settings.secret_key, *settings.secret_key_fallbacks]
        given += [each for each in (settings.smtp_password, settings.first_admin_password) if each]
        found = {secret.get_secret_value() for secret in given}
        found |= {url.password or "" for url in (settings.url, settings.direct_url)}
        found.add(_password_of(settings.redis_url))
        forms = {form(secret) for secret in found for form in (str, quote, quote_plus)}
        self._longest_first = sorted(forms - {""}, key=len, reverse=True)

    def masked(self, text: str) -> str:
        """Return a text from elsewhere with the secrets masked."""
        for secret in self._longest_first:
            text = text.replace(secret, "***")
        return text


def _password_of(url: str | None) -> str:
    return urlsplit(url or "").password or ""


async def bounded(check: str, work: Awaitable[Findings], secrets: Secrets) -> Findings:
    """Return what a check finds; a failure if it raises or takes longer than SECONDS."""
    try:
        findings = await in_time(work)
    except TimeoutError:
        remedy = "See whether it is overloaded or frozen, and whether a firewall drops packets."
        return [failure(check, f"no answer within {SECONDS:g} s", remedy)]
    except Exception as error:  # noqa: BLE001 whatever a check meets is a finding
        message = secrets.masked(reason(error))
        return [failure(check, message, "See the reason; then run this again.")]
    return [
        Finding(each.verdict, each.check, secrets.masked(each.message), each.remedy)
        for each in findings
    ]


async def in_time(work: Awaitable[Any]) -> Any:
    """Return a result within SECONDS; raise TimeoutError otherwise, and leave what hangs to end."""
    working = asyncio.ensure_future(work)
    await asyncio.wait({working}, timeout=SECONDS)
    if not working.done():
        working.cancel()
        raise TimeoutError
    return working.result()


def reason(error: BaseException) -> str:
    """Return an error in one short line: a driver's own words, without the statement."""
    if isinstance(error, DBAPIError) and error.orig is not None:
        error = error.orig
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}"[:_MAX_REASON] if text else type(error).__name__


def comma_separated(names: Sequence[str]) -> str:
    return ", ".join(names)
