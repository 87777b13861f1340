"""Mails of the outbox."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from app.models.outbox import MailKind, MailState
from app.schemas.base import CreatedAt, RecordId, ResponseModel, UtcDatetime
from app.schemas.pages import SORT, PageQuery


class Mail(ResponseModel):
    """A mail and how its delivery stands. `text` and `html` are null while an SMTP server is
    configured, in production unless the reader may manage the recipient (`users:write`, and every
    permission of the recipient's), and after a retry. In development, links that open accounts
    are cut out of them unless the reader may."""

    id: RecordId
    kind: MailKind
    recipient: str = Field(description="The address that the mail goes to.")
    locale: str = Field(description="Language of the mail.")
    subject: str = Field(description="Subject of the mail.")
    text: str | None = Field(description="The mail as plain text; null if it is hidden.")
    html: str | None = Field(description="The mail as HTML; null if it is hidden.")
    message_id: str = Field(description="The header `Message-ID`, the same on every attempt.")
    state: MailState
    attempts: int = Field(description="The number of attempts at delivery.")
    next_attempt_at: UtcDatetime | None = Field(
        description="When the next attempt is due; null if none is."
    )
    sent_at: UtcDatetime | None = Field(description="When the mail was sent; null before.")
    last_error: str | None = Field(description="Why the last attempt failed; null if none did.")
    created_at: CreatedAt


class MailQuery(PageQuery):
    filters = ("state", "kind")

    sort: Annotated[Literal["created_at", "-created_at"], SORT] = "-created_at"
    state: MailState | None = Field(None, description="Mails in this state alone.")
    kind: MailKind | None = Field(None, description="Mails of this kind alone.")
