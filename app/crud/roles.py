"""Roles: sets of permissions, given to users."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

from sqlalchemy import CursorResult, bindparam, delete, func, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import selectinload

from app.core.exceptions import RoleNameTaken, SystemRole
from app.core.keyring import SecretKeys
from app.core.permissions import (
    ADMIN_ROLE,
    SYSTEM_ROLES,
    Caller,
    Permission,
    reach_beyond_own_rows,
    require_holds,
)
from app.crud import account_recovery, admins, audit_events, user_queries
from app.db import guards
from app.db.paginated_queries import PaginatedQuery
from app.db.pagination import PageResult, Paginator
from app.db.projections import Projection, Source, aggregated, split_values
from app.db.queries import PreparedQuery, QueryRunner
from app.db.rows import (
    add_if_missing,
    changed_fields,
    flush_and_expunge,
    flush_or_conflict,
    one_or_404,
    read_one,
)
from app.db.transactions import session_transaction
from app.models.audit_events import AuditAct
from app.models.roles import Role, RolePermission, effective
from app.models.users import User, UserRole
from app.schemas import roles as schemas

_NAME_CONFLICT = {"uq_roles_live_name": RoleNameTaken}


# All users of a role, from an index alone, less the few in the trash: to read each user takes a
# quarter of a second for 100,000. By `Table`: the filter that hides the trash is not added to it.
_ACCOUNTS: Any = User.__table__
_HOLDERS = (
    select(func.count())
    .select_from(UserRole)
    .where(UserRole.role_id == Role.id)
    .correlate(Role)
    .scalar_subquery()
)
_DELETED_HOLDERS = (
    select(func.count())
    .select_from(_ACCOUNTS)
    .join(UserRole, UserRole.user_id == _ACCOUNTS.c.id)
    .where(UserRole.role_id == Role.id, _ACCOUNTS.c.deleted_at.is_not(None))
    .correlate(Role)
    .scalar_subquery()
)
_GRANTED = select(RolePermission.permission).where(RolePermission.role_id == Role.id)
_PROJECTION = Projection(
    schemas.Role,
    Role,
    permissions=Source(
        (Role.name, aggregated(RolePermission.permission, from_select=_GRANTED.correlate(Role))),
        lambda name, granted: effective(name, set(split_values(granted))),
    ),
    is_system=Source((Role.name,), SYSTEM_ROLES.__contains__),
    user_count=_HOLDERS - _DELETED_HOLDERS,
)
_BY_ID = PreparedQuery(_PROJECTION.select().where(Role.id == bindparam("role_id")))


async def read(reader: QueryRunner, *, role_id: int) -> dict[str, Any]:
    """Return a role with its permissions and number of users; raise NotFound otherwise."""
    return _PROJECTION.from_row(await read_one(reader, _BY_ID, role_id=role_id))


async def show(session: AsyncSession, *, role_id: int) -> dict[str, Any]:
    """Return a (flushed) role as `read` would."""
    rows = await session_transaction(
        session, lambda transaction: transaction.rows(_BY_ID, role_id=role_id)
    )
    return _PROJECTION.from_row(rows[0])


async def get_for_update(session: AsyncSession, *, role_id: int) -> Role:
    """Return a role, locked, with its permissions; raise NotFound otherwise."""
    statement = select(Role).where(Role.id == role_id).options(selectinload(Role.granted))
    return await one_or_404(session, statement.with_for_update())


async def create(session: AsyncSession, *, caller: Caller, data: schemas.RoleCreate) -> Role:
    """Create a role; raise InsufficientScope for permissions the caller lacks, RoleNameTaken."""
    require_holds(caller, data.permissions)
    role = Role(name=data.name, description=data.description, granted=_grants(data.permissions))
    session.add(role)
    await flush_or_conflict(session, _NAME_CONFLICT)
    granted = sorted(role.permissions)
    audit_events.record(session, AuditAct.role_created, role, name=role.name, granted=granted)
    return role


async def update(
    session: AsyncSession, *, caller: Caller, role: Role, data: schemas.RoleUpdate
) -> Role:
    """Apply the body; raise SystemRole, InsufficientScope, RoleNameTaken.

    All that the role grants, before and after, must be the caller's own. When it grants more than
    before, links that set a password of those who have it are withdrawn.
    """
    require_holds(caller, role.permissions)
    changes: dict[str, Any] = data.model_dump()
    before = set(role.permissions)
    if role.is_system and changes.get("name", role.name) != role.name:
        raise SystemRole
    if "permissions" in changes:
        wanted = set(changes.pop("permissions"))
        if role.name == ADMIN_ROLE and wanted != before:
            raise SystemRole
        require_holds(caller, wanted)
        role.granted = [grant for grant in role.granted if grant.permission in wanted] + _grants(
            wanted - before
        )
    fields = changed_fields(changes, role)
    for name, value in changes.items():
        setattr(role, name, value)
    await flush_or_conflict(session, _NAME_CONFLICT)
    granted, revoked = (
        sorted(set(role.permissions) - before),
        sorted(before - set(role.permissions)),
    )
    if reach_beyond_own_rows(granted):
        await account_recovery.withdraw_password_links_of_role(session, role_id=role.id)
    if fields or granted or revoked:
        details: dict[str, Any] = {"fields": fields, "granted": granted, "revoked": revoked}
        audit_events.record(session, AuditAct.role_updated, role, name=role.name, **details)
    return role


def _grants(permissions: list[Permission] | set[Permission]) -> list[RolePermission]:
    return [RolePermission(permission=name) for name in sorted(set(permissions))]


async def soft_delete(session: AsyncSession, *, caller: Caller, role: Role) -> None:
    """Put a role in the trash and take it from all users; raise SystemRole, InsufficientScope."""
    if role.is_system:
        raise SystemRole
    require_holds(caller, role.permissions)
    role.soft_delete()
    await flush_and_expunge(session, role)
    await session.execute(delete(UserRole).where(UserRole.role_id == role.id))
    audit_events.record(session, AuditAct.role_deleted, role, name=role.name)


async def assign(
    session: AsyncSession, *, caller: Caller, user: User, role_id: int, keys: SecretKeys
) -> None:
    """Give a user a role; they may have it already. Raises InsufficientScope, NotFound.

    With more permissions than before, the links that set their password are replaced.
    """
    role = await get_for_update(session, role_id=role_id)
    require_holds(caller, role.permissions)
    gained = set(role.permissions) - set(user.permissions)
    if not await add_if_missing(session, UserRole(user_id=user.id, role_id=role.id)):
        return
    # On a cluster it conflicts with a link that they ask for, or with their leaving, elsewhere.
    await guards.touch_user(session, user.id)
    audit_events.record(session, AuditAct.role_granted, user, role_id=role.id, role=role.name)
    if reach_beyond_own_rows(gained):
        await account_recovery.replace_password_links(session, keys=keys, user=user)


async def revoke(session: AsyncSession, *, caller: Caller, user: User, role_id: int) -> None:
    """Take a role from a user; they may not have it. Raises InsufficientScope, LastAdmin."""
    role = await get_for_update(session, role_id=role_id)
    require_holds(caller, role.permissions)
    if role.name == ADMIN_ROLE:
        await admins.ensure_not_last_admin(session, without=user.id)
    taken = await session.execute(
        delete(UserRole).where(UserRole.user_id == user.id, UserRole.role_id == role.id)
    )
    if cast("CursorResult[Any]", taken).rowcount:
        await guards.touch_sessions_of_user(session, user.id)
        audit_events.record(session, AuditAct.role_revoked, user, role_id=role.id, role=role.name)


async def list_roles(
    paginator: Paginator, *, query: schemas.RoleQuery
) -> PageResult[dict[str, Any]]:
    """Return a page of all roles."""
    return await paginator.paginate(_EVERY, query, {})


async def list_of_user(
    paginator: Paginator, *, user_id: int, query: schemas.RoleQuery
) -> PageResult[dict[str, Any]]:
    """Return a page of the roles of a user; raise NotFound if there is no such user."""
    page = await paginator.paginate(_THEIRS, query, {"user_id": user_id})
    # Only an empty page leaves open whether there is such a user: one statement less otherwise.
    if not page.items:
        await user_queries.require(paginator.reader, user_id=user_id)
    return page


_EVERY = PaginatedQuery(
    name="roles",
    filtered_ids=select(Role.id),
    id=Role.id,
    sort_columns={"created_at": Role.created_at, "name": Role.name},
    projection=_PROJECTION,
)
_THEIRS = replace(
    _EVERY,
    filtered_ids=select(Role.id).where(
        Role.id.in_(
            select(UserRole.role_id)
            .join(User, User.id == UserRole.user_id)
            .where(UserRole.user_id == bindparam("user_id"))
        )
    ),
    _queries={},
)
