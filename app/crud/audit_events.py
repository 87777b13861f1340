"""The audit trail: events are written in the transaction of the act, and never changed."""

from __future__ import annotations

import asyncio
import logging
from functools import cache
from typing import Any

from sqlalchemy import bindparam, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.context import request_context
from app.db.engine import Database
from app.db.failures import described
from app.db.paginated_queries import PaginatedQuery, filters_of
from app.db.pagination import PageResult, Paginator
from app.db.projections import Projection
from app.models.audit_events import AuditAct, AuditEvent
from app.models.base import TimestampedModel
from app.models.sessions import MAX_IP, MAX_USER_AGENT
from app.schemas import audit_events as schemas

# An act is done to a row, or to something that is only known by its name.
Subject = TimestampedModel | tuple[str, int] | None
# Well before the deadline of the request: the response does not depend on it.
RECORD_SECONDS = 1.0
log = logging.getLogger("app.audit")
_SUBJECTS = {"users": "user", "roles": "role", "sessions": "session"}
_PROJECTION = Projection(schemas.AuditEvent, AuditEvent)


def record(
    session: AsyncSession,
    act: AuditAct,
    subject: Subject = None,
    *,
    actor_id: int | None = None,
    **details: Any,
) -> None:
    """Record an act of the request's caller (or of `actor_id`), to a (flushed) row.

    The details hold names and ids; never passwords, tokens, hashes or what fields were set to.
    """
    context = request_context()
    subject_type, subject_id = _named(subject)
    session.add(
        AuditEvent(
            act=act,
            actor_id=actor_id if actor_id is not None else context.user_id,
            subject_type=subject_type,
            subject_id=subject_id,
            ip=context.ip[:MAX_IP],
            user_agent=context.user_agent[:MAX_USER_AGENT],
            request_id=context.request_id,
            details=details,
        )
    )


async def record_apart(
    database: Database, act: AuditAct, subject: Subject = None, **details: Any
) -> bool:
    """Record an act in a transaction of its own, which a refused request does not roll back.

    Never raise: log an event that cannot be written in RECORD_SECONDS, and return False.
    """

    async def write(session: AsyncSession) -> None:
        record(session, act, subject, **details)

    try:
        async with asyncio.timeout(RECORD_SECONDS):
            await database.run(write)
    except Exception as error:  # noqa: BLE001 the response must not change
        log.error("audit event lost", extra={**described(error), "act": act, **details})
        return False
    return True


def _named(subject: Subject) -> tuple[str, int] | tuple[None, None]:
    if isinstance(subject, TimestampedModel):
        return _SUBJECTS[subject.__tablename__], subject.id
    return subject or (None, None)


_FILTERS = {
    "act": AuditEvent.act == bindparam("act"),
    "actor_id": AuditEvent.actor_id == bindparam("actor_id"),
    "subject_type": AuditEvent.subject_type == bindparam("subject_type"),
    "subject_id": AuditEvent.subject_id == bindparam("subject_id"),
    "created_from": AuditEvent.created_at >= bindparam("created_from"),
    "created_to": AuditEvent.created_at < bindparam("created_to"),
}


async def list_events(
    paginator: Paginator, *, query: schemas.AuditQuery
) -> PageResult[dict[str, Any]]:
    """Return a page of the events that match the filters."""
    parameters = filters_of(query)
    return await paginator.paginate(_listing(tuple(parameters)), query, parameters)


@cache
def _listing(filters: tuple[str, ...]) -> PaginatedQuery:
    return PaginatedQuery(
        name="audit_events",
        filtered_ids=select(AuditEvent.id).where(*(_FILTERS[name] for name in filters)),
        id=AuditEvent.id,
        sort_columns={"created_at": AuditEvent.created_at},
        projection=_PROJECTION,
    )
