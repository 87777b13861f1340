"""Emptying the trash: what has lain there too long is gone for good."""

from __future__ import annotations

from datetime import datetime
from typing import Any, cast

from sqlalchemy import CursorResult, delete, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.models.base import INCLUDE_DELETED
from app.models.outbox import Mail
from app.models.posts import Post
from app.models.roles import Role
from app.models.sessions import LoginSession
from app.models.users import User

_OPTIONS = {INCLUDE_DELETED: True, "synchronize_session": False}


async def purge(session: AsyncSession, *, before: datetime) -> dict[str, int]:
    """Delete for good what went into the trash before a moment; returns counts by table.

    With a user go their posts, which were in the trash with them, the mails to them, and by
    the foreign keys their sessions and roles. Sessions that expired before then go too.
    """
    gone = select(User.id).where(User.deleted_at < before)
    counts = {}
    for name, statement in (
        ("mails", delete(Mail).where(Mail.user_id.in_(gone))),
        ("posts", delete(Post).where((Post.deleted_at < before) | Post.author_id.in_(gone))),
        ("users", delete(User).where(User.deleted_at < before)),
        ("roles", delete(Role).where(Role.deleted_at < before)),
        ("sessions", delete(LoginSession).where(LoginSession.expires_at < before)),
    ):
        result = await session.execute(statement, execution_options=_OPTIONS)
        counts[name] = cast("CursorResult[Any]", result).rowcount
    return counts
