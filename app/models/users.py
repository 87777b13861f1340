"""Users: the accounts that can log in."""

from __future__ import annotations

import re
import unicodedata
from datetime import date, datetime

from sqlalchemy import Computed, Index, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column, relationship

from app.core.permissions import Permission
from app.models.base import (
    TABLE_OPTIONS,
    Base,
    Guarded,
    SoftDelete,
    TimestampedModel,
    exact_text,
    foreign_key,
    trash_index,
    utc_now,
)
from app.models.roles import Role

MAX_EMAIL = 254
_FOLDED = re.compile("[^ßς]+")
MAX_NAME = 100
MAX_PHONE = 20


def email_key(email: str) -> str:
    """Return what makes two addresses the same: NFKC and case folding (never shown to anyone).

    Of a domain `ß` and `ς` are kept: since IDNA 2008 `straße.de` and `strasse.de` are two domains,
    of two owners.
    """
    local, at, domain = unicodedata.normalize("NFKC", email.strip()).rpartition("@")
    return local.casefold() + at + _FOLDED.sub(lambda part: part[0].casefold(), domain)


class UserRole(Base):
    """Which user has which role."""

    __tablename__ = "user_roles"
    __table_args__ = (Index(None, "role_id", "user_id"), TABLE_OPTIONS)

    user_id: Mapped[int] = foreign_key("users.id", ondelete="CASCADE", primary_key=True)
    role_id: Mapped[int] = foreign_key("roles.id", ondelete="CASCADE", primary_key=True)


class User(TimestampedModel, SoftDelete, Guarded):
    """An account. Its address is unique among the live ones: the trash does not block it."""

    __tablename__ = "users"
    __table_args__ = (
        UniqueConstraint("live_email"),
        Index(None, "created_at", "id", "deleted_at", "is_active"),
        Index(None, "name", "id", "deleted_at", "is_active"),
        Index(None, "email", "id", "deleted_at", "is_active"),
        trash_index(),
        TABLE_OPTIONS,
    )

    email: Mapped[str] = mapped_column(String(MAX_EMAIL))
    email_key: Mapped[str] = mapped_column(exact_text(MAX_EMAIL))
    live_email: Mapped[str | None] = mapped_column(
        exact_text(MAX_EMAIL),
        Computed("CASE WHEN deleted_at IS NULL THEN email_key END", persisted=True),
    )
    name: Mapped[str] = mapped_column(String(MAX_NAME))
    phone: Mapped[str | None] = mapped_column(String(MAX_PHONE), default=None)
    birth_date: Mapped[date | None] = mapped_column(default=None)
    locale: Mapped[str] = mapped_column(String(8), default="en")
    password_hash: Mapped[str | None] = mapped_column(exact_text(255), default=None)
    is_active: Mapped[bool] = mapped_column(default=True)
    email_verified_at: Mapped[datetime | None] = mapped_column(default=None)

    roles: Mapped[list[Role]] = relationship(
        secondary="user_roles", lazy="raise", order_by=Role.name
    )

    @property
    def email_verified(self) -> bool:
        return self.email_verified_at is not None

    @property
    def permissions(self) -> list[Permission]:
        """Return all that the user's roles grant, in the order of the enum."""
        held = {permission for role in self.roles for permission in role.permissions}
        return [permission for permission in Permission if permission in held]

    def soft_delete(self) -> None:
        self.deleted_at = utc_now()

    def restore(self) -> None:
        self.deleted_at = None
