"""Whether this process can serve: what it needs answers, and it is not shutting down."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection
from enum import StrEnum
from typing import Any

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from app.config import Settings
from app.core.single_flight import SingleFlight
from app.db import migrations
from app.db.engine import Database
from app.db.errors import is_outage
from app.db.failures import described
from app.db.fitness import VERSIONS
from app.db.sqlite import why_unusable

log = logging.getLogger("app.readiness")
SECONDS = 1.0
_LOOK = text(f"SELECT max(version_num) FROM {VERSIONS}")  # noqa: S608 a constant


class Part(StrEnum):
    """What is needed to serve beside the process itself."""

    database = "database"
    redis = "redis"


# What is missing where the database answers, but has no tables, or not yet all.
MIGRATIONS = "migrations"


class _NotMigratedError(Exception):
    """The database answers, and its tables are not those of this version."""


class Readiness:
    """Looks whether what the app needs answers, within SECONDS, over connections of its own: a
    busy pool is no reason to be sent nothing at all."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._redis: Any = _redis(settings.redis_url) if settings.redis_url else None
        self._is_draining = False
        self._was: set[str] = set()
        self._reasons: dict[str, str] = {}
        self._lookups = {Part.database: SingleFlight(self._ask_database, seconds=SECONDS)}
        if self._redis is not None:
            self._lookups[Part.redis] = SingleFlight(self._ask_redis, seconds=SECONDS)

    def drain(self) -> None:
        """Report this server as missing from now on, so that it is sent nothing more."""
        self._is_draining = True

    async def missing(self, *, exclude: Collection[Part] = ()) -> list[str]:
        """Return what keeps this process from serving: names of parts, `server` for itself,
        `migrations` where the database lacks nothing else."""
        asked = [part for part in self._lookups if part not in exclude]
        answers = await asyncio.gather(*map(self._lack, asked))
        missing = [lack for lack in answers if lack]
        missing += ["server"] if self._is_draining else []
        self._note({*missing}, asked={*asked, MIGRATIONS, "server"})
        return missing

    async def close(self) -> None:
        """Hang up; of no use afterwards."""
        for lookup in self._lookups.values():
            await lookup.close()
        if self._redis is not None:
            await self._redis.aclose()

    def _note(self, missing: set[str], *, asked: set[str]) -> None:
        """Log what has changed; of what was not asked for, nothing is known to have."""
        now = (self._was - asked) | missing
        if now != self._was:
            reasons = [self._reasons[part] for part in sorted(now) if part in self._reasons]
            facts = {
                "missing": ", ".join(sorted(now)) or None,
                "reason": "; ".join(reasons) or None,
            }
            log.warning("readiness changed", extra=facts)
            self._was = now

    async def _lack(self, part: Part) -> str | None:
        try:
            await self._lookups[part].answer()
        except _NotMigratedError:
            return MIGRATIONS
        # Whatever it is: refused, frozen, a wrong password.
        except Exception as error:  # noqa: BLE001 see above
            self._reasons[part.value] = _in_words(error)
            return part.value
        return None

    async def _ask_redis(self) -> None:
        # Written to: one that is full answers a PING, and takes no jobs.
        await self._redis.set("cimiento-ready", "1", ex=60)

    async def _ask_database(self) -> None:
        probing = self._database.probing
        if self._database.dialect == "sqlite" and (why := why_unusable(probing.url)):
            raise PermissionError(why)
        async with probing.connect() as connection:
            raw = await connection.get_raw_connection()
            # SQLite's alone: a server that takes no writes is still one to read from.
            getattr(raw.driver_connection, "refuse_readonly", lambda: None)()
            try:
                revision = await connection.scalar(_LOOK)
            except DBAPIError as error:
                if is_outage(error):
                    raise
                raise _NotMigratedError from error  # there is no such table
        # A newer version may have migrated further, which this one works with.
        if str(revision or "") < migrations.head():
            raise _NotMigratedError


def _in_words(error: Exception) -> str:
    """Return an error as a log may show it; what SQLite's file lacks is in our own words."""
    if isinstance(error, PermissionError):
        return str(error)
    facts = described(error)
    return " ".join(
        str(facts[name]) for name in ("error", "errno", "sqlstate", "sqlite") if name in facts
    )


def _redis(url: str) -> Any:
    # Imported when it is used, and not with the first question: it takes half a second.
    from redis.asyncio import Redis  # noqa: PLC0415 see above
    from redis.asyncio.retry import Retry  # noqa: PLC0415 see above
    from redis.backoff import NoBackoff  # noqa: PLC0415 see above

    # One more try, for the connection that a restart of Redis has cut.
    return Redis.from_url(
        url, socket_timeout=SECONDS, socket_connect_timeout=SECONDS, retry=Retry(NoBackoff(), 1)
    )
