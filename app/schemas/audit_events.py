"""Events of the audit trail."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from app.models.audit_events import AuditAct
from app.schemas.base import RecordId, ResponseModel, RowId, UtcDatetime
from app.schemas.pages import SORT, PageQuery


class AuditEvent(ResponseModel):
    """Who did what to whom, when, from where, in which request."""

    id: RecordId
    created_at: UtcDatetime = Field(description="When it happened.")
    act: AuditAct
    actor_id: int | None = Field(description="The user who did it; null without a login.")
    subject_type: Literal["user", "role", "session"] | None = Field(
        description="What kind of record it was done to; null if to none."
    )
    subject_id: int | None = Field(description="The record it was done to; null if to none.")
    ip: str = Field(description="The address that the request came from; empty for a command.")
    user_agent: str = Field(description="The program that sent the request, as it calls itself.")
    request_id: str = Field(description="The `X-Request-ID` of the request; empty for a command.")
    details: dict[str, Any] = Field(description="What else is worth knowing; depends on `act`.")


class AuditQuery(PageQuery):
    filters = ("act", "actor_id", "subject_type", "subject_id", "created_from", "created_to")

    sort: Annotated[Literal["created_at", "-created_at"], SORT] = "-created_at"
    act: AuditAct | None = Field(None, description="Events of this kind alone.")
    actor_id: RowId | None = Field(None, description="The user who did it.")
    subject_type: Literal["user", "role", "session"] | None = Field(
        None, description="What kind of record it was done to."
    )
    subject_id: RowId | None = Field(None, description="The record it was done to.")
    created_from: UtcDatetime | None = Field(
        None, description="Events at or after this moment alone."
    )
    created_to: UtcDatetime | None = Field(None, description="Events before this moment alone.")
