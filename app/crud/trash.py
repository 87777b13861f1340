"""Emptying the trash, and forgetting what has expired or is of no use: gone for good."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any, cast

from sqlalchemy import ColumnElement, CursorResult, delete, exists, inspect, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.models.base import INCLUDE_DELETED, Base, utc_now
from app.models.idempotency import IdempotencyKey
from app.models.one_time_tokens import OneTimeToken
from app.models.outbox import Mail, MailState
from app.models.posts import Post
from app.models.roles import Role
from app.models.sessions import LoginSession, RefreshToken
from app.models.tags import PostTag, Tag
from app.models.users import User

BATCH = 5_000
TAGS_BATCH = 500
_REUSE_TOLD = timedelta(days=30)
_OPTIONS = {INCLUDE_DELETED: True, "synchronize_session": False}


async def purge(session: AsyncSession, *, before: datetime) -> dict[str, int]:
    """Delete for good what went into the trash before a moment; returns counts by table.

    With a user go their posts, which were in the trash with them, the mails to them, and by
    the foreign keys their sessions, links and roles.
    """
    gone = select(User.id).where(User.deleted_at < before)
    counts = {}
    for name, statement in (
        ("mails", delete(Mail).where(Mail.user_id.in_(gone))),
        ("posts", delete(Post).where((Post.deleted_at < before) | Post.author_id.in_(gone))),
        ("users", delete(User).where(User.deleted_at < before)),
        ("roles", delete(Role).where(Role.deleted_at < before)),
    ):
        result = await session.execute(statement, execution_options=_OPTIONS)
        counts[name] = cast("CursorResult[Any]", result).rowcount
    return counts


# What expires, and when it is forgotten; with sessions go their refresh tokens.
EXPIRING: dict[str, tuple[type[Base], Callable[[datetime], ColumnElement[bool]]]] = {
    "sessions": (LoginSession, lambda before: LoginSession.expires_at < before),
    # A used one that comes back tells of a thief, however short a time the trash is kept.
    "refresh tokens": (
        RefreshToken,
        lambda before: RefreshToken.used_at < min(before, utc_now() - _REUSE_TOLD),
    ),
    "links": (OneTimeToken, lambda before: OneTimeToken.expires_at < before),
    # Of no use to anybody from then on, and a copy of what is kept elsewhere.
    "idempotency keys": (IdempotencyKey, lambda _: IdempotencyKey.expires_at < utc_now()),
}


async def forget(session: AsyncSession, *, name: str, before: datetime) -> int:
    """Delete what expired before a moment, of one kind of EXPIRING; returns how many.

    No more than BATCH at once: the growth of months may take longer than a statement may.
    """
    model, has_expired = EXPIRING[name]
    (key,) = inspect(model).primary_key
    keys = list(await session.scalars(select(key).where(has_expired(before)).limit(BATCH)))
    result = await session.execute(delete(model).where(key.in_(keys)), execution_options=_OPTIONS)
    return cast("CursorResult[Any]", result).rowcount


async def forget_mails(session: AsyncSession, *, before: datetime) -> int:
    """Delete mails that were sent, or given up, before a moment; return how many.

    No more than BATCH at once. A mail that is tried again at this moment stays.
    """
    # By the moment of the last attempt, for which there is an index with the state.
    is_old = Mail.state.in_([MailState.sent, MailState.dead]) & (Mail.next_attempt_at < before)
    keys = list(await session.scalars(select(Mail.id).where(is_old).limit(BATCH)))
    statement = delete(Mail).where(Mail.id.in_(keys), is_old)
    result = await session.execute(statement, execution_options=_OPTIONS)
    return cast("CursorResult[Any]", result).rowcount


_UNUSED = ~exists(PostTag.post_id).where(PostTag.tag_id == Tag.id).correlate(Tag)


async def find_unused_tags(session: AsyncSession, *, after: int) -> tuple[int, Sequence[int]]:
    """Look at the next TAGS_BATCH tags: return the id of the last one (0 if there are none), and
    the ids of those that no post has, not even one in the trash."""
    looked_at = select(Tag.id).where(Tag.id > after).order_by(Tag.id).limit(TAGS_BATCH)
    ids = list(await session.scalars(looked_at))
    unused = await session.scalars(select(Tag.id).where(Tag.id.in_(ids), _UNUSED))
    return (ids[-1] if ids else 0), unused.all()


async def forget_tags(session: AsyncSession, *, ids: Sequence[int]) -> int:
    """Delete those of these tags that still no post has; return how many.

    Tags are made in the transaction of the first post that has them, and locked by others that
    get them (`crud/tags.py`): what is locked here, no post can get, and what is not, stays.
    """
    locked = select(Tag.id).where(Tag.id.in_(ids)).order_by(Tag.id)
    keys = list(await session.scalars(locked.with_for_update(skip_locked=True)))
    statement = delete(Tag).where(Tag.id.in_(keys), _UNUSED)
    result = await session.execute(statement, execution_options=_OPTIONS)
    return cast("CursorResult[Any]", result).rowcount
