"""Logins: one row each, read on every request, so that ending one takes effect at once."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Index, String
from sqlalchemy.orm import Mapped, mapped_column

from app.models.base import TABLE_OPTIONS, Guarded, TimestampedModel, foreign_key

MAX_IP = 45
MAX_USER_AGENT = 255
HASH_LENGTH = 64
MAX_SCOPE = 1_000


class LoginSession(TimestampedModel, Guarded):
    """A login on one device. Over when `ended_at` is set or `expires_at` has passed, which moves
    on at every refresh, up to SESSION_DAYS from the beginning."""

    __tablename__ = "sessions"
    __table_args__ = (Index(None, "user_id", "ended_at"), Index(None, "expires_at"), TABLE_OPTIONS)

    user_id: Mapped[int] = foreign_key("users.id", ondelete="CASCADE")
    expires_at: Mapped[datetime]
    last_used_at: Mapped[datetime]
    ended_at: Mapped[datetime | None] = mapped_column(default=None)
    ip: Mapped[str] = mapped_column(String(MAX_IP), default="")
    user_agent: Mapped[str] = mapped_column(String(MAX_USER_AGENT), default="")
    # The permissions it was asked to be limited to, with spaces between; None for all.
    scope: Mapped[str | None] = mapped_column(String(MAX_SCOPE), default=None)

    def is_live(self, now: datetime) -> bool:
        """Return whether the session has not ended or expired."""
        return self.ended_at is None and now < self.expires_at
