"""Roles: named sets of permissions, edited at run time."""

from __future__ import annotations

from sqlalchemy import Computed, Index, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column, relationship

from app.core.permissions import ADMIN_ROLE, SYSTEM_ROLES, Permission
from app.models.base import (
    TABLE_OPTIONS,
    Base,
    Guarded,
    SoftDelete,
    TimestampedModel,
    exact_text,
    foreign_key,
    utc_now,
)

MAX_ROLE_NAME = 50
MAX_DESCRIPTION = 500


class RolePermission(Base):
    """Which role grants which permission."""

    __tablename__ = "role_permissions"
    __table_args__ = TABLE_OPTIONS

    role_id: Mapped[int] = foreign_key("roles.id", ondelete="CASCADE", primary_key=True)
    permission: Mapped[str] = mapped_column(exact_text(50), primary_key=True)


class Role(TimestampedModel, SoftDelete, Guarded):
    """A role. `admin` grants everything, whatever the table says."""

    __tablename__ = "roles"
    __table_args__ = (
        UniqueConstraint("live_name"),
        Index(None, "created_at", "id", "deleted_at"),
        Index(None, "name", "id", "deleted_at"),
        TABLE_OPTIONS,
    )

    name: Mapped[str] = mapped_column(exact_text(MAX_ROLE_NAME))
    live_name: Mapped[str | None] = mapped_column(
        exact_text(MAX_ROLE_NAME),
        Computed("CASE WHEN deleted_at IS NULL THEN name END", persisted=True),
    )
    description: Mapped[str] = mapped_column(String(MAX_DESCRIPTION), default="")

    granted: Mapped[list[RolePermission]] = relationship(
        lazy="raise", cascade="all, delete-orphan", passive_deletes=True
    )

    @property
    def is_system(self) -> bool:
        return self.name in SYSTEM_ROLES

    @property
    def permissions(self) -> list[Permission]:
        """Return what the role grants, in the order of the enum; leave out unknown names."""
        return effective(self.name, {grant.permission for grant in self.granted})

    def soft_delete(self) -> None:
        self.deleted_at = utc_now()


def effective(role_name: str, granted: set[str]) -> list[Permission]:
    """Return the permissions a role grants: all for `admin`, otherwise those in `granted`."""
    return [name for name in Permission if role_name == ADMIN_ROLE or name in granted]
