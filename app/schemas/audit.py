"""Events of the audit trail."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from app.models.audit import AuditAct
from app.schemas.base import Moment, Output, RowId
from app.schemas.pages import PageQuery


class AuditEvent(Output):
    """Who (`actor_id`; null for nobody logged in) did what (`act`) to whom (`subject_type` and
    `subject_id`), when, from where, in which request."""

    id: int
    created_at: Moment
    act: AuditAct
    actor_id: int | None
    subject_type: Literal["user", "role", "session"] | None
    subject_id: int | None
    ip: str
    user_agent: str
    request_id: str
    details: dict[str, Any] = Field(description="What else is worth knowing; depends on `act`.")


class AuditQuery(PageQuery):
    filters = ("act", "actor_id", "subject_type", "subject_id", "created_from", "created_to")

    sort: Literal["created_at", "-created_at"] = "-created_at"
    act: AuditAct | None = None
    actor_id: RowId | None = Field(None, description="Who did it.")
    subject_type: Literal["user", "role", "session"] | None = None
    subject_id: RowId | None = Field(None, description="To whom or what it was done.")
    created_from: Moment | None = Field(None, description="At or after this moment.")
    created_to: Moment | None = Field(None, description="Before this moment.")
