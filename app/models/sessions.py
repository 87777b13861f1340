"""Logins: one row each, looked at on every request, so that ending one takes effect at once."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Index, String
from sqlalchemy.orm import Mapped, mapped_column

from app.models.base import MARIADB_TABLE, Row, reference

MAX_IP = 45
MAX_USER_AGENT = 255


class LoginSession(Row):
    """A login on one device. Over when `ended_at` is set or `expires_at` has passed."""

    __tablename__ = "sessions"
    __table_args__ = (Index(None, "user_id", "ended_at"), Index(None, "expires_at"), MARIADB_TABLE)

    user_id: Mapped[int] = reference("users.id", ondelete="CASCADE")
    expires_at: Mapped[datetime]
    last_used_at: Mapped[datetime]
    ended_at: Mapped[datetime | None] = mapped_column(default=None)
    ip: Mapped[str] = mapped_column(String(MAX_IP), default="")
    user_agent: Mapped[str] = mapped_column(String(MAX_USER_AGENT), default="")
