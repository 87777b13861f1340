"""Mails of the outbox."""

from __future__ import annotations

from typing import Literal

from app.models.outbox import MailKind, MailState
from app.schemas.base import Moment, Output
from app.schemas.pages import PageQuery


class Mail(Output):
    """A mail and how its delivery stands. `text` and `html` are null while an SMTP server is
    configured, in production unless the reader may manage the recipient (`users:write`, and every
    permission of the recipient's), and after a retry. In development, links that open accounts
    are cut out of them unless the reader may."""

    id: int
    kind: MailKind
    recipient: str
    locale: str
    subject: str
    text: str | None
    html: str | None
    message_id: str
    state: MailState
    attempts: int
    next_attempt_at: Moment | None
    sent_at: Moment | None
    last_error: str | None
    created_at: Moment


class MailQuery(PageQuery):
    filters = ("state", "kind")

    sort: Literal["created_at", "-created_at"] = "-created_at"
    state: MailState | None = None
    kind: MailKind | None = None
