"""Administrators: that there is always one who can log in."""

from __future__ import annotations

from sqlalchemy import Select, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.exceptions import LastAdmin
from app.core.permissions import ADMIN_ROLE
from app.crud import guards
from app.models.roles import Role
from app.models.users import User, UserRole


async def keep_an_admin(session: AsyncSession, *, without: int) -> None:
    """Raise LastAdmin if user `without` is the only active admin left.

    Locks the admin role's row, so that of two admins who remove each other at the same
    moment the second one is counted after the first is gone. By its id, as everybody does:
    MariaDB locks each index entry it walks, and two ways to one row would be a deadlock. When
    `without` is one of the active admins the row is also written, as locks end at a node.
    """
    named = select(Role.id).where(Role.name == ADMIN_ROLE).scalar_subquery()
    role = select(Role.id).where(Role.id == named).with_for_update()
    role_id = (await session.scalars(role)).one()
    admins = set(await session.scalars(_active_admins()))
    if admins == {without}:
        raise LastAdmin
    if without in admins:
        await guards.touch_role(session, role_id)


async def has_admin(session: AsyncSession) -> bool:
    """Whether anybody can administrate."""
    return bool(await session.scalar(_active_admins().limit(1)))


def _active_admins() -> Select[int]:
    return (
        select(User.id)
        .join(UserRole, UserRole.user_id == User.id)
        .join(Role, Role.id == UserRole.role_id)
        # One who was never given a password cannot log in, and so saves nobody.
        .where(Role.name == ADMIN_ROLE, User.is_active, User.password_hash.is_not(None))
    )
