"""What is too old to be kept: deleted by `scripts/purge`, and every night where workers run."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from functools import partial

from sqlalchemy.ext.asyncio import AsyncSession

from app.config import Settings
from app.crud import audit, trash
from app.database import Database
from app.models.base import utc_now


async def purge(database: Database, settings: Settings) -> dict[str, int]:
    """Delete for good what was in the trash longer than TRASH_DAYS, audit events older than
    AUDIT_DAYS, and what has expired; counts by name. Harmless when run twice, also at the same
    time."""
    now, days = utc_now(), settings.audit_days
    counts = await empty(database, before=now - timedelta(days=settings.trash_days))
    old_events = partial(audit.purge, before=now - timedelta(days=days))
    counts["events"] = await _in_batches(database, old_events, audit.PURGE_BATCH) if days else 0
    return counts


async def empty(database: Database, *, before: datetime) -> dict[str, int]:
    """Delete for good what went into the trash, or expired, before a moment; counts by name."""
    counts = await database.run(partial(trash.purge, before=before))
    for name in trash.EXPIRING:
        forget = partial(trash.forget, name=name, before=before)
        counts[name] = await _in_batches(database, forget, trash.BATCH)
    return counts


async def _in_batches(
    database: Database, delete: Callable[[AsyncSession], Awaitable[int]], size: int
) -> int:
    """Delete batch by batch, each in a transaction of its own, which is run again
    after a deadlock; how many that were."""
    total, gone = 0, size
    while gone >= size:
        gone = await database.run(delete)
        total += gone
    return total
