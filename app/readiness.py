"""Whether this process can serve: what it needs answers, and it is not shutting down."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection
from enum import StrEnum
from typing import Any

from sqlalchemy import select

from app.config import Settings
from app.core.lookups import Lookup
from app.database import Database
from app.models.roles import Role

log = logging.getLogger("app.readiness")
SECONDS = 1.0
# Of a table: a database without tables answers too, and nothing could be served from it.
_LOOK = select(Role.id).limit(1)


class Part(StrEnum):
    """What is needed to serve beside the process itself."""

    database = "database"
    redis = "redis"


class Readiness:
    """Looks whether what the app needs answers, within SECONDS, over connections of its own: a
    busy pool is no reason to be sent nothing at all."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._redis = _redis(settings.redis_url) if settings.redis_url else None
        self._is_draining = False
        self._was: set[str] = set()
        self._lookups = {Part.database: Lookup(self._ask_database, seconds=SECONDS)}
        if self._redis is not None:
            self._lookups[Part.redis] = Lookup(self._redis.ping, seconds=SECONDS)

    def drain(self) -> None:
        """From now on there is one part missing, this server: send it nothing more."""
        self._is_draining = True

    async def missing(self, *, exclude: Collection[Part] = ()) -> list[str]:
        """What keeps this process from serving: names of parts, `server` for itself."""
        asked = [part for part in self._lookups if part not in exclude]
        answers = await asyncio.gather(*map(self._answers, asked))
        missing = [part.value for part, does in zip(asked, answers, strict=True) if not does]
        missing += ["server"] if self._is_draining else []
        self._note({*missing}, asked={*asked, "server"})
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
            log.warning("readiness changed", extra={"missing": ", ".join(sorted(now)) or None})
            self._was = now

    async def _answers(self, part: Part) -> bool:
        try:
            await self._lookups[part].answer()
        # Whatever it is: refused, frozen, no such table, a wrong password.
        except Exception:  # noqa: BLE001 see above
            return False
        return True

    async def _ask_database(self) -> object:
        async with self._database.probing.connect() as connection:
            return await connection.execute(_LOOK)


def _redis(url: str) -> Any:
    # Imported when it is used, and not with the first question: it takes half a second.
    from redis.asyncio import Redis  # noqa: PLC0415 see above
    from redis.asyncio.retry import Retry  # noqa: PLC0415 see above
    from redis.backoff import NoBackoff  # noqa: PLC0415 see above

    # One more try, for the connection that a restart of Redis has cut.
    return Redis.from_url(
        url, socket_timeout=SECONDS, socket_connect_timeout=SECONDS, retry=Retry(NoBackoff(), 1)
    )
