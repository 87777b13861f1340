"""Roles: sets of permissions, given to users."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, delete, func, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import selectinload, with_expression
from sqlalchemy.sql.base import ExecutableOption

from app.core.exceptions import RoleNameTaken, SystemRole
from app.core.permissions import ADMIN_ROLE, Caller, Permission, require_holds
from app.crud import users
from app.crud.base import (
    Cursors,
    Listing,
    PageOf,
    add_if_missing,
    flush_or_conflict,
    flush_out,
    one_or_404,
    paginate,
)
from app.models.roles import Role, RolePermission
from app.models.users import User, UserRole
from app.schemas.roles import RoleCreate, RoleQuery, RoleUpdate

_NAME_CONFLICT = {"uq_roles_live_name": RoleNameTaken}


async def get(session: AsyncSession, *, role_id: int) -> Role:
    """A role with its permissions and the number of its users, or NotFound."""
    return await one_or_404(session, select(Role).where(Role.id == role_id).options(*_shown()))


async def get_for_update(session: AsyncSession, *, role_id: int) -> Role:
    """The same, locked."""
    statement = select(Role).where(Role.id == role_id).options(*_shown())
    return await one_or_404(session, statement.with_for_update())


def _shown() -> tuple[ExecutableOption, ...]:
    """Load the permissions of a role and how many live users have it."""
    user_count = (
        select(func.count())
        .select_from(UserRole)
        .join(User, User.id == UserRole.user_id)
        # Said here: the listener that hides the trash does not reach into this expression.
        .where(UserRole.role_id == Role.id, User.deleted_at.is_(None))
        .correlate(Role)
        .scalar_subquery()
    )
    return selectinload(Role.granted), with_expression(Role.user_count, user_count)


async def create(session: AsyncSession, *, caller: Caller, data: RoleCreate) -> Role:
    """A new role. Raises InsufficientScope for permissions the caller lacks, RoleNameTaken."""
    require_holds(caller, data.permissions)
    role = Role(name=data.name, description=data.description, granted=_grants(data.permissions))
    session.add(role)
    await flush_or_conflict(session, _NAME_CONFLICT)
    role.user_count = 0
    return role


async def update(session: AsyncSession, *, caller: Caller, role: Role, data: RoleUpdate) -> Role:
    """Apply what the body holds. Raises SystemRole, InsufficientScope, RoleNameTaken.

    All that the role grants, before and after, must be the caller's own.
    """
    require_holds(caller, role.permissions)
    changes: dict[str, Any] = data.model_dump()
    if role.is_system and changes.get("name", role.name) != role.name:
        raise SystemRole
    if "permissions" in changes:
        wanted = set(changes.pop("permissions"))
        if role.name == ADMIN_ROLE and wanted != set(role.permissions):
            raise SystemRole
        require_holds(caller, wanted)
        role.granted = [grant for grant in role.granted if grant.permission in wanted] + _grants(
            wanted - set(role.permissions)
        )
    for name, value in changes.items():
        setattr(role, name, value)
    await flush_or_conflict(session, _NAME_CONFLICT)
    return role


def _grants(permissions: list[Permission] | set[Permission]) -> list[RolePermission]:
    return [RolePermission(permission=name) for name in sorted(set(permissions))]


async def soft_delete(session: AsyncSession, *, caller: Caller, role: Role) -> None:
    """Put a role in the trash and take it from everybody. Raises SystemRole,
    InsufficientScope."""
    if role.is_system:
        raise SystemRole
    require_holds(caller, role.permissions)
    role.soft_delete()
    await flush_out(session, role)
    await session.execute(delete(UserRole).where(UserRole.role_id == role.id))


async def assign(session: AsyncSession, *, caller: Caller, user: User, role_id: int) -> None:
    """Give a user a role; they may have it already. Raises InsufficientScope, NotFound."""
    role = await get_for_update(session, role_id=role_id)
    require_holds(caller, role.permissions)
    await add_if_missing(session, UserRole(user_id=user.id, role_id=role.id))


async def revoke(session: AsyncSession, *, caller: Caller, user: User, role_id: int) -> None:
    """Take a role from a user; they may not have it. Raises InsufficientScope, LastAdmin."""
    role = await get_for_update(session, role_id=role_id)
    require_holds(caller, role.permissions)
    if role.name == ADMIN_ROLE:
        await users.keep_an_admin(session, without=user.id)
    await session.execute(
        delete(UserRole).where(UserRole.user_id == user.id, UserRole.role_id == role.id)
    )


async def list_roles(session: AsyncSession, *, query: RoleQuery, cursors: Cursors) -> PageOf[Role]:
    """All roles."""
    return await paginate(session, _listing(), query, cursors)


async def list_of_user(
    session: AsyncSession, *, user_id: int, query: RoleQuery, cursors: Cursors
) -> PageOf[Role]:
    """The roles a user has, or NotFound."""
    theirs = (
        select(UserRole.role_id)
        .join(User, User.id == UserRole.user_id)
        .where(UserRole.user_id == user_id)
    )
    page = await paginate(session, _listing(Role.id.in_(theirs)), query, cursors)
    # Only an empty page leaves open whether there is such a user: one statement less otherwise.
    if not page.items:
        await users.require(session, user_id=user_id)
    return page


def _listing(*criteria: ColumnElement[bool]) -> Listing[Role]:
    return Listing(
        name="roles",
        matching=select(Role.id).where(*criteria),
        id=Role.id,
        keys={"created_at": Role.created_at, "name": Role.name},
        rows=lambda page: select(Role).join(page, page.c.id == Role.id).options(*_shown()),
        item=lambda row: row[0],
    )
