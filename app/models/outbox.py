"""Mails waiting to be sent, written in the transaction that causes them."""

from __future__ import annotations

import secrets
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import JSON, Index, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from app.models.base import TABLE_OPTIONS, DatabaseNow, TimestampedModel, exact_text, foreign_key
from app.models.users import MAX_EMAIL

MAX_ERROR = 300


class MailKind(StrEnum):
    """Which mail it is; its texts are `mail.<kind>` in `app/locales/`."""

    welcome = "welcome"
    session_reused = "session_reused"
    verify_email = "verify_email"
    invitation = "invitation"
    password_reset = "password_reset"  # noqa: S105 no secret
    password_changed = "password_changed"  # noqa: S105 no secret
    email_change = "email_change"
    email_change_notice = "email_change_notice"
    email_changed = "email_changed"


class MailState(StrEnum):
    """`pending` between attempts, `sending` during one; in the end `sent`, or `dead` after too
    many refusals."""

    pending = "pending"
    sending = "sending"
    sent = "sent"
    dead = "dead"


class Mail(TimestampedModel):
    """One mail. `key` becomes its Message-ID, the same on every attempt."""

    __tablename__ = "outbox"
    __table_args__ = (
        UniqueConstraint("key"),
        Index(None, "state", "next_attempt_at"),
        Index(None, "created_at", "id"),
        Index(None, "state", "created_at", "id", "kind"),
        Index(None, "kind", "created_at", "id", "state"),
        TABLE_OPTIONS,
    )

    key: Mapped[str] = mapped_column(exact_text(64), default=lambda: secrets.token_hex(16))
    kind: Mapped[MailKind] = mapped_column(String(32))
    user_id: Mapped[int | None] = foreign_key(
        "users.id", ondelete="SET NULL", purged_as="mails", index=True
    )
    recipient: Mapped[str] = mapped_column(String(MAX_EMAIL))
    locale: Mapped[str] = mapped_column(String(8))
    values: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)
    state: Mapped[MailState] = mapped_column(String(16), default=MailState.pending)
    attempts: Mapped[int] = mapped_column(default=0)
    next_attempt_at: Mapped[datetime] = mapped_column(default=DatabaseNow())
    sent_at: Mapped[datetime | None] = mapped_column(default=None)
    last_error: Mapped[str | None] = mapped_column(String(MAX_ERROR), default=None)
