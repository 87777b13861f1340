"""Idempotency keys: the stored responses to requests that created something."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, Index, SmallInteger, Text
from sqlalchemy.dialects import mysql
from sqlalchemy.orm import Mapped, mapped_column

from app.models.base import TABLE_OPTIONS, Base, exact_text, foreign_key
from app.models.sessions import HASH_LENGTH


class IdempotencyKey(Base):
    """A key of a caller and the response it got; `user_id` is the caller, or the registered user.

    Neither the key nor the request is stored: the first by its SHA-256, the second by a MAC.
    """

    __tablename__ = "idempotency_keys"
    __table_args__ = (Index(None, "user_id"), Index(None, "expires_at"), TABLE_OPTIONS)

    key_hash: Mapped[str] = mapped_column(exact_text(HASH_LENGTH), primary_key=True)
    user_id: Mapped[int | None] = foreign_key("users.id", ondelete="CASCADE", default=None)
    fingerprint: Mapped[str] = mapped_column(exact_text(HASH_LENGTH))
    status: Mapped[int] = mapped_column(SmallInteger)
    headers: Mapped[dict[str, Any]] = mapped_column(JSON)
    # As text, which JSON is: aiomysql fails on bytes.
    body: Mapped[str] = mapped_column(Text().with_variant(mysql.MEDIUMTEXT(), "mysql", "mariadb"))
    expires_at: Mapped[datetime]
