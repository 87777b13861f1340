"""Administrators: ensure that there is always one who can log in."""

from __future__ import annotations

from sqlalchemy import Select, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.exceptions import LastAdmin
from app.core.permissions import ADMIN_ROLE
from app.crud import authorization
from app.db.transactions import session_transaction
from app.models.roles import Role
from app.models.users import User, UserRole


async def ensure_not_last_admin(session: AsyncSession, *, without: int) -> None:
    """Raise LastAdmin if the (locked) user `without` is the only active admin left.

    Take the lock of rights for an admin: of two who remove each other at the same time, the
    second is checked after the first is gone. Other users do not need it.
    """
    if not await is_admin(session, user_id=without):
        return
    await session_transaction(session, authorization.lock_rights)
    if set(await session.scalars(_active_admins())) == {without}:
        raise LastAdmin


async def is_admin(session: AsyncSession, *, user_id: int) -> bool:
    """Return whether a user has the role `admin`; of a locked user it stays true."""
    having = select(UserRole.user_id).join(Role, Role.id == UserRole.role_id)
    found = having.where(UserRole.user_id == user_id, Role.name == ADMIN_ROLE)
    return await session.scalar(found) is not None


async def has_admin(session: AsyncSession) -> bool:
    """Return whether there is an active admin."""
    return bool(await session.scalar(_active_admins().limit(1)))


def _active_admins() -> Select[int]:
    return (
        select(User.id)
        .join(UserRole, UserRole.user_id == User.id)
        .join(Role, Role.id == UserRole.role_id)
        # An admin without a password cannot log in, and so does not count.
        .where(Role.name == ADMIN_ROLE, User.is_active, User.password_hash.is_not(None))
    )
