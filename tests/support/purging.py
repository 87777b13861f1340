"""The purge, called as the command does."""

from __future__ import annotations

from datetime import datetime

from app.crud import trash
from app.database import Database
from app.tasks import purge as purging


async def empty(database: Database, *, before: datetime) -> dict[str, int]:
    """Delete what went into the trash, or expired, before a moment; how many, by name."""
    done = await purging.follow(database, trash.TRASH, trash.Limits(before))
    assert not done.failures, done.failures
    return dict(done.counts)
