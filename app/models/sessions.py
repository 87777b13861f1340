"""Logins: one row each, looked at on every request, so that ending one takes effect at once."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Index, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from app.models.base import MARIADB_TABLE, Guarded, Row, exact_text, reference

MAX_IP = 45
MAX_USER_AGENT = 255
HASH_LENGTH = 64


class LoginSession(Row, Guarded):
    """A login on one device. Over when `ended_at` is set or `expires_at` has passed, which moves
    on at every refresh, up to SESSION_DAYS from the beginning."""

    __tablename__ = "sessions"
    __table_args__ = (Index(None, "user_id", "ended_at"), Index(None, "expires_at"), MARIADB_TABLE)

    user_id: Mapped[int] = reference("users.id", ondelete="CASCADE")
    expires_at: Mapped[datetime]
    last_used_at: Mapped[datetime]
    ended_at: Mapped[datetime | None] = mapped_column(default=None)
    ip: Mapped[str] = mapped_column(String(MAX_IP), default="")
    user_agent: Mapped[str] = mapped_column(String(MAX_USER_AGENT), default="")

    def is_live(self, now: datetime) -> bool:
        """Whether it is not over."""
        return self.ended_at is None and now < self.expires_at


class RefreshToken(Row):
    """A refresh token that was given out, by its SHA-256 in hexadecimal; each is used once."""

    __tablename__ = "refresh_tokens"
    __table_args__ = (UniqueConstraint("token_hash"), MARIADB_TABLE)

    session_id: Mapped[int] = reference("sessions.id", ondelete="CASCADE", index=True)
    token_hash: Mapped[str] = mapped_column(exact_text(HASH_LENGTH))
    used_at: Mapped[datetime | None] = mapped_column(default=None)
