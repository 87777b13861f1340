"""Retention: which rows are due for permanent deletion, and how they are deleted.

A `Rule` says which rows of a table are due from when on. Every function here does one short step of
the work in the session it is given; `app/tasks/retention.py` puts the steps together, each in a
transaction of its own. No step reads or locks more than a bounded number of rows, and each finds
them by an index.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from typing import Any, NamedTuple, cast

from sqlalchemy import ColumnElement, CursorResult, and_, delete, exists, select, true, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.db.references import (
    Column,
    cascading,
    class_of,
    few,
    is_simple,
    key_of,
    links_to,
    marks_of,
    models_with_trash,
    purged_with,
)
from app.models.audit_events import PURGING, AuditEvent
from app.models.base import INCLUDE_DELETED, PURGE_STARTED, Base, TimestampedModel, utc_now
from app.models.idempotency_keys import IdempotencyKey
from app.models.one_time_tokens import OneTimeToken
from app.models.outbox import Mail, MailState
from app.models.refresh_tokens import RefreshToken
from app.models.sessions import LoginSession
from app.models.tags import PostTag, Tag

# How many keys are looked up at once.
LOOK = 10_000
TAGS_LOOK = 500
_REUSE_TOLD = timedelta(days=30)
_OPTIONS = {INCLUDE_DELETED: True, PURGING: True, "synchronize_session": False}


@dataclass(frozen=True)
class Limits:
    """Before which date and time rows are due; None keeps them for ever."""

    trash: datetime
    mails: datetime | None = None
    events: datetime | None = None

    @property
    def reuse(self) -> datetime:
        """Return the limit of used refresh tokens, whose reuse reveals a theft, however short a
        time the trash is kept."""
        return min(self.trash, utc_now() - _REUSE_TOLD)


class Found(NamedTuple):
    """Keys of rows that seem to be due, and where the next look begins: None after the last."""

    keys: Sequence[Any]
    next: Any


@dataclass(frozen=True)
class Kind:
    """Rows of one table, by the name they are counted under; without one they are not counted."""

    model: type[Base]
    name: str = ""

    async def delete(
        self,
        session: AsyncSession,
        keys: Sequence[Any],
        limits: Limits,  # noqa: ARG002 what other kinds go by
    ) -> int:
        """Delete rows of a parent that is going; return how many. Waits for who holds one."""
        return await _delete(session, self.model, keys)


@dataclass(frozen=True)
class Rule(Kind):
    """Rows that are due when `due_column` is before a limit, found by the index on it.

    `leading` holds for all rows of the rule, on the columns before `due_column` in that index;
    `only` is looked at when a row is deleted; `mark_column` is set by `mark_purging`: a row with it
    set cannot be restored.
    """

    due_column: Any = None
    limit: Callable[[Limits], datetime | None] = lambda limits: limits.trash
    leading: ColumnElement[bool] | None = None
    only: ColumnElement[bool] | None = None
    mark_column: str = "deleted_at"

    @property
    def is_marked_first(self) -> bool:
        """Whether rows are marked before what belongs to them is deleted in batches."""
        return bool(dependents(self.model))

    async def look(self, session: AsyncSession, limits: Limits, start: Any) -> Found:
        """Find the next LOOK rows, the oldest first; `start` is the `next` of the look before."""
        key = key_of(self.model)
        due = select(key, self.due_column).where(self._is_old(limits))
        if start is not None:
            due = due.where(self.due_column >= start)
        result = await session.execute(due.order_by(self.due_column).limit(LOOK), **_everything())
        rows = result.all()
        return Found([row[0] for row in rows], rows[-1][1] if len(rows) == LOOK else None)

    async def mark_purging(
        self, session: AsyncSession, keys: Sequence[Any], limits: Limits
    ) -> list[Any]:
        """Mark those of the rows that are still due, and return their keys.

        None of them can come back to life (be restored, be refreshed) from then on, without what
        belonged to it and is deleted next.
        """
        model: Any = self.model
        marked_keys = await _lock(session, model, keys, self._is_due(limits))
        values = {self.mark_column: PURGE_STARTED, "updated_at": model.updated_at}
        marking = update(model).where(key_of(model).in_(marked_keys)).values(values)
        await session.execute(marking, execution_options=_OPTIONS)
        return marked_keys

    async def delete(self, session: AsyncSession, keys: Sequence[Any], limits: Limits) -> int:
        """Delete those of the rows that are still due; return how many.

        A row that is restored meanwhile stays, as does one that a request holds at this time.
        """
        locked = await _lock(session, self.model, keys, self._is_due(limits))
        return await _delete(session, self.model, locked)

    def _is_old(self, limits: Limits) -> ColumnElement[bool]:
        is_old: ColumnElement[bool] = self.due_column < self.limit(limits)
        return is_old if self.leading is None else self.leading & is_old

    def _is_due(self, limits: Limits) -> ColumnElement[bool]:
        return self._is_old(limits) if self.only is None else self._is_old(limits) & self.only


@dataclass(frozen=True)
class Walk(Rule):
    """A rule without an index on its `due_column`: the table is walked through by its key.

    Rows that were created after the limit cannot be due, and are not reached.
    """

    async def look(self, session: AsyncSession, limits: Limits, start: Any) -> Found:
        """Look at the next LOOK rows."""
        model = cast("type[TimestampedModel]", self.model)
        looked_at = select(model.id, model.created_at, self.due_column).where(
            model.id > (start or 0)
        )
        result = await session.execute(looked_at.order_by(model.id).limit(LOOK), **_everything())
        rows, limit = result.all(), cast("datetime", self.limit(limits))
        keys = [id_ for id_, _, due_at in rows if due_at is not None and due_at < limit]
        is_last = len(rows) < LOOK or rows[-1][1] >= limit
        return Found(keys, None if is_last else rows[-1][0])


_UNUSED = ~exists(PostTag.post_id).where(PostTag.tag_id == Tag.id).correlate(Tag)


@dataclass(frozen=True)
class UnusedTags(Rule):
    """Tags that no post has, not even one in the trash."""

    async def look(
        self,
        session: AsyncSession,
        limits: Limits,  # noqa: ARG002 what other kinds go by
        start: Any,
    ) -> Found:
        """Look at the next TAGS_LOOK tags."""
        looked_at = select(Tag.id).where(Tag.id > (start or 0)).order_by(Tag.id).limit(TAGS_LOOK)
        ids = (await session.scalars(looked_at)).all()
        # MariaDB would collect the tags of all posts for a NOT EXISTS.
        unused = select(Tag.id).outerjoin(PostTag, PostTag.tag_id == Tag.id)
        unused = unused.where(Tag.id.in_(ids), PostTag.post_id.is_(None))
        found = await session.scalars(unused)
        return Found(found.all(), ids[-1] if len(ids) == TAGS_LOOK else None)

    async def delete(
        self,
        session: AsyncSession,
        keys: Sequence[Any],
        limits: Limits,  # noqa: ARG002 what other kinds go by
    ) -> int:
        """Delete those of these tags that still no post has; return how many.

        A tag is created in the transaction of its first post, and locked by that of any other post
        that gets it (`crud/tags.py`): a tag that is locked here cannot be linked to a post.
        """
        # Only now: PostgreSQL would judge by what stood there before the tags were locked.
        locked = await _lock(session, Tag, keys, true())
        return await _delete(session, Tag, locked, _UNUSED)


_EXPIRING: tuple[Rule, ...] = (
    Rule(LoginSession, "sessions", LoginSession.expires_at, mark_column="ended_at"),
    Walk(RefreshToken, "refresh tokens", RefreshToken.used_at, lambda limits: limits.reuse),
    Rule(OneTimeToken, "links", OneTimeToken.expires_at),
    # Useless from then on, and a copy of what is stored elsewhere.
    Rule(IdempotencyKey, "idempotency keys", IdempotencyKey.expires_at, lambda _: utc_now()),
)
_AGEING: tuple[Rule, ...] = (
    UnusedTags(Tag, "tags"),
    # By the time of the last attempt. One that is tried again meanwhile stays.
    *(
        Rule(Mail, "old mails", Mail.next_attempt_at, lambda limits: limits.mails, is_over)
        for is_over in (Mail.state == MailState.sent, Mail.state == MailState.dead)
    ),
    Rule(AuditEvent, "events", AuditEvent.created_at, lambda limits: limits.events),
)


def trash_rules() -> list[Rule]:
    """Return the rules for what was in the trash for long, or has expired.

    Parents come first, and what went to the trash with a row has to go with it, or come back.
    """
    return [*map(_rule_for_trash, models_with_trash()), *_EXPIRING]


def rules() -> list[Rule]:
    """Return the rules for all that is kept for a time only."""
    return [*trash_rules(), *_AGEING]


def _rule_for_trash(model: type[Any]) -> Rule:
    leading = {index.columns.keys()[0] for index in model.__table__.indexes}
    went_alone = [~mark for mark in marks_of(model)]
    return (Rule if "deleted_at" in leading else Walk)(
        model, model.__tablename__, model.deleted_at, only=and_(*went_alone) if went_alone else None
    )


class Dependent(NamedTuple):
    """Rows that go with rows of another table, by the column that points to these."""

    column: Column
    kind: Kind


@cache
def dependents(model: type[Base]) -> tuple[Dependent, ...]:
    """Return what goes before a row of a table, batch by batch."""
    named = purged_with(model)
    declared = [Dependent(column, Kind(class_of(column), name)) for column, name in named]
    found = [column for column in cascading(model) if is_simple(class_of(column))]
    return (*declared, *(Dependent(column, Kind(class_of(column))) for column in found))


async def look_for(
    session: AsyncSession, dependent: Dependent, parents: Sequence[Any]
) -> list[Any]:
    """Return the keys of LOOK rows that point to some of these."""
    key = key_of(dependent.kind.model)
    pointing = select(key).where(dependent.column.in_(parents)).limit(LOOK)
    return list(await session.scalars(pointing, **_everything()))


async def _lock(
    session: AsyncSession, model: type[Base], keys: Sequence[Any], due: ColumnElement[bool]
) -> list[Any]:
    """Lock those of some rows that are `due` and that nobody else holds, by ascending keys; return
    their keys."""
    key = key_of(model)
    locking = select(key).where(key.in_(keys), due).order_by(key).with_for_update(skip_locked=True)
    return list(await session.scalars(locking, **_everything()))


async def _delete(
    session: AsyncSession,
    model: type[Base],
    locked: Sequence[Any],
    still: ColumnElement[bool] | None = None,
) -> int:
    """Delete rows that nobody else wants, and before them what links them to others (a few rows
    each)."""
    if not locked:
        return 0
    # Only of rows that go whatever happens.
    for column in links_to(model) if still is None else ():
        for some in few(locked):
            links = delete(class_of(column)).where(column.in_(some))
            await session.execute(links, execution_options=_OPTIONS)
    going = delete(model).where(key_of(model).in_(locked), true() if still is None else still)
    result = await session.execute(going, execution_options=_OPTIONS)
    return cast("CursorResult[Any]", result).rowcount


def _everything() -> dict[str, Any]:
    return {"execution_options": _OPTIONS}
