"""One-time tokens: the links in mails carry them, as proof of access to a mailbox."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from sqlalchemy import Index, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from app.models.base import TABLE_OPTIONS, TimestampedModel, exact_text, foreign_key
from app.models.sessions import HASH_LENGTH
from app.models.users import MAX_EMAIL


class Purpose(StrEnum):
    """What a token is good for."""

    verify_email = "verify_email"
    change_email = "change_email"
    reset_password = "reset_password"  # noqa: S105 no secret
    invitation = "invitation"


class OneTimeToken(TimestampedModel):
    """A token that was mailed to `email`, by its SHA-256 in hexadecimal.

    A newer one for the same user and purpose replaces the older ones.
    """

    __tablename__ = "one_time_tokens"
    __table_args__ = (
        UniqueConstraint("token_hash"),
        Index(None, "user_id", "purpose"),
        Index(None, "expires_at"),
        TABLE_OPTIONS,
    )

    user_id: Mapped[int] = foreign_key("users.id", ondelete="CASCADE")
    purpose: Mapped[Purpose] = mapped_column(String(32))
    token_hash: Mapped[str] = mapped_column(exact_text(HASH_LENGTH))
    email: Mapped[str] = mapped_column(String(MAX_EMAIL))
    expires_at: Mapped[datetime]
    used_at: Mapped[datetime | None] = mapped_column(default=None)
