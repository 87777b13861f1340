"""Refresh tokens that were given out, by their hashes."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from app.models.base import TABLE_OPTIONS, TimestampedModel, exact_text, foreign_key
from app.models.sessions import HASH_LENGTH


class RefreshToken(TimestampedModel):
    """A refresh token that was given out, by its SHA-256 in hexadecimal; each is used once."""

    __tablename__ = "refresh_tokens"
    __table_args__ = (UniqueConstraint("token_hash"), TABLE_OPTIONS)

    session_id: Mapped[int] = foreign_key("sessions.id", ondelete="CASCADE", index=True)
    token_hash: Mapped[str] = mapped_column(exact_text(HASH_LENGTH))
    used_at: Mapped[datetime | None] = mapped_column(default=None)
