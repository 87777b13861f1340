"""What is too old to be kept, and counts that are wrong: deleted and mended by `scripts/purge`, and
every night where workers run."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from functools import partial

from sqlalchemy.ext.asyncio import AsyncSession

from app.config import Settings
from app.crud import audit, tags, trash
from app.database import Database
from app.models.base import utc_now

MENDED = "mended tag counts"


async def purge(database: Database, settings: Settings) -> dict[str, int]:
    """Delete for good what was in the trash longer than TRASH_DAYS, mails sent or given up longer
    than OUTBOX_DAYS ago, audit events older than AUDIT_DAYS, tags that no post has, and what has
    expired; counts by name. Mend wrong counts of tags: how many is the count of MENDED. Harmless
    when run twice, also at the same time."""
    now = utc_now()
    counts = await empty(database, before=now - timedelta(days=settings.trash_days))
    counts["tags"] = await _purge_tags(database)
    for name, days, delete, size in (
        ("old mails", settings.outbox_days, trash.forget_mails, trash.BATCH),
        ("events", settings.audit_days, audit.purge, audit.PURGE_BATCH),
    ):
        old = partial(delete, before=now - timedelta(days=days))
        counts[name] = await _in_batches(database, old, size) if days else 0
    counts[MENDED] = await mend_tag_counts(database)
    return counts


async def empty(database: Database, *, before: datetime) -> dict[str, int]:
    """Delete for good what went into the trash, or expired, before a moment; counts by name."""
    counts = await database.run(partial(trash.purge, before=before))
    for name in trash.EXPIRING:
        forget = partial(trash.forget, name=name, before=before)
        counts[name] = await _in_batches(database, forget, trash.BATCH)
    return counts


async def _purge_tags(database: Database) -> int:
    total = last = 0
    while True:
        async with database.begin(readonly=True) as session:
            last, unused = await trash.find_unused_tags(session, after=last)
        if unused:
            total += await database.run(partial(trash.forget_tags, ids=unused))
        if not last:
            return total


async def mend_tag_counts(database: Database) -> int:
    """Set right what `Tag.post_count` says where it is wrong; return how many were.

    A version that does not count may have served beside this one (docs/adr/0022). Found without
    locks, then counted again one by one with the tag locked, each in a transaction of its own.
    """
    mended = last = 0
    while True:
        async with database.begin(readonly=True) as session:
            last, wrong = await tags.find_miscounted(session, after=last)
        for tag_id in wrong:
            mended += await database.run(partial(tags.recount, tag_id=tag_id))
        if not last:
            return mended


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
