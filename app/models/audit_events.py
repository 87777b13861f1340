"""Security events: written in the transaction of the act, and never changed."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import JSON, Index, String, event
from sqlalchemy.orm import Mapped, ORMExecuteState, Session, mapped_column

from app.models.base import TABLE_OPTIONS, Base, BigId, utc_now
from app.models.sessions import MAX_IP, MAX_USER_AGENT

MAX_REQUEST_ID = 64
# The execution option of the purge, which alone may delete events.
PURGING = "audit_purging"


class AuditAct(StrEnum):
    """What was done, as `noun.verb`."""

    login_succeeded = "login.succeeded"
    login_failed = "login.failed"
    access_denied = "access.denied"
    limit_hit = "limit.hit"
    session_ended = "session.ended"
    session_reused = "session.reused"
    user_registered = "user.registered"
    user_created = "user.created"
    user_updated = "user.updated"
    user_disabled = "user.disabled"
    user_enabled = "user.enabled"
    user_deleted = "user.deleted"
    user_restored = "user.restored"
    password_changed = "password.changed"  # noqa: S105 no secret
    password_reset = "password.reset"  # noqa: S105 no secret
    password_forgotten = "password.forgotten"  # noqa: S105 no secret
    email_verified = "email.verified"
    email_change_requested = "email.change_requested"
    email_changed = "email.changed"
    role_created = "role.created"
    role_updated = "role.updated"
    role_deleted = "role.deleted"
    role_granted = "role.granted"
    role_revoked = "role.revoked"


class AuditEvent(Base):
    """Who did what to whom, when, from where. The ids are no foreign keys: what is purged from
    the other tables leaves its trace here."""

    __tablename__ = "audit_events"
    __table_args__ = (
        Index(None, "created_at", "id"),
        Index(None, "act", "created_at", "id"),
        Index(None, "actor_id", "created_at", "id"),
        Index(None, "subject_type", "created_at", "id"),
        Index(None, "subject_id", "created_at", "id", "subject_type"),
        TABLE_OPTIONS,
    )

    id: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=True)
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    act: Mapped[AuditAct] = mapped_column(String(32))
    actor_id: Mapped[int | None] = mapped_column(BigId, default=None)
    subject_type: Mapped[str | None] = mapped_column(String(32), default=None)
    subject_id: Mapped[int | None] = mapped_column(BigId, default=None)
    ip: Mapped[str] = mapped_column(String(MAX_IP), default="")
    user_agent: Mapped[str] = mapped_column(String(MAX_USER_AGENT), default="")
    request_id: Mapped[str] = mapped_column(String(MAX_REQUEST_ID), default="")
    details: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)


@event.listens_for(AuditEvent, "before_update")
@event.listens_for(AuditEvent, "before_delete")
def _refuse_change(*_: object) -> None:
    raise RuntimeError("the audit trail is only ever added to")


@event.listens_for(Session, "do_orm_execute")
def _refuse_bulk_change(state: ORMExecuteState) -> None:
    if not (state.is_update or state.is_delete) or state.execution_options.get(PURGING, False):
        return
    if state.bind_mapper is not None and state.bind_mapper.class_ is AuditEvent:
        _refuse_change()
