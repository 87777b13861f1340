"""Authorization: who the caller is, and that their rights still hold where a change commits.

A request is first checked against what is known of its caller, which may be as old as
`sessions.CALLER_CACHE_SECONDS` (docs/adr/0011-what-is-remembered.md). A transaction that writes
asks again, by its first statement and with locks, before anything is decided or changed in it
(docs/adr/0025-rights-in-the-transaction.md).
"""

from __future__ import annotations

from collections.abc import Collection
from functools import lru_cache, partial
from typing import Any

from sqlalchemy import bindparam, func, literal, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.exceptions import InvalidToken
from app.core.permissions import ADMIN_ROLE, GRANTING, Caller, Permission, require_any
from app.db import guards
from app.db.projections import aggregated, split_rows
from app.db.queries import PreparedQuery, Rows
from app.db.transactions import Transaction, session_transaction
from app.models.base import UtcDateTime, utc_now
from app.models.roles import Role, RolePermission, effective
from app.models.sessions import LoginSession
from app.models.users import User, UserRole

_HELD = (
    select(Role.id)
    .join(UserRole, UserRole.role_id == Role.id)
    .outerjoin(RolePermission, RolePermission.role_id == Role.id)
    .where(UserRole.user_id == User.id)
    .correlate(User)
)
_CALLER = (
    select(
        User.name,
        LoginSession.scope,
        aggregated(
            Role.name, func.coalesce(RolePermission.permission, literal("")), from_select=_HELD
        ),
    )
    # The user before the session: the order of locks that every transaction keeps.
    .select_from(User)
    .join(LoginSession, LoginSession.user_id == User.id)
    .where(
        User.id == bindparam("user_id"),
        User.is_active,
        LoginSession.id == bindparam("session_id"),
        LoginSession.ended_at.is_(None),
        LoginSession.expires_at > bindparam("now", type_=UtcDateTime()),
    )
)
CALLER = PreparedQuery(_CALLER)


class _LockedRead:
    """Reads a caller and locks their user and session, by one statement where it can.

    PostgreSQL evaluates a statement on the snapshot it took before it waited for a lock: roles
    that were revoked meanwhile would still be there. So it reads at once what is not locked, and
    otherwise waits for the locks first and reads by another statement.
    """

    def __init__(self, *, shared: bool) -> None:
        lock: dict[str, Any] = {"read": shared, "of": [User, LoginSession]}
        self._waiting = PreparedQuery(_CALLER.with_for_update(**lock))
        self._at_once = PreparedQuery(_CALLER.with_for_update(**lock, skip_locked=True))
        self._locks = PreparedQuery(_CALLER.with_only_columns(User.id).with_for_update(**lock))

    def rows(self, transaction: Transaction, parameters: dict[str, Any]) -> Rows:
        if transaction.dialect.name != "postgresql":
            return transaction.rows(self._waiting, **parameters)
        rows = transaction.rows(self._at_once, **parameters)
        if not rows:
            transaction.rows(self._locks, **parameters)
            rows = transaction.rows(CALLER, **parameters)
        return rows


_SHARED, _EXCLUSIVE = _LockedRead(shared=True), _LockedRead(shared=False)
_ADMIN_ID = select(Role.id).where(Role.name == ADMIN_ROLE).scalar_subquery()
# By its id: MariaDB locks each index entry it walks, and two ways to one row can deadlock.
_RIGHTS_LOCK = PreparedQuery(select(Role.id).where(Role.id == _ADMIN_ID).with_for_update())


def caller_parameters(*, user_id: int, session_id: int) -> dict[str, Any]:
    """Return the parameters of the queries for a caller."""
    return {"user_id": user_id, "session_id": session_id, "now": utc_now()}


def caller_of(rows: Rows, *, user_id: int, session_id: int) -> Caller:
    """Return the caller that a query found; raise InvalidToken for a session that is over, or a
    user who is disabled or deleted."""
    if not rows:
        raise InvalidToken
    name, scope, held = rows[0]
    permissions = _permissions(held)
    if scope is not None:
        asked = scope.split()
        permissions = frozenset(each for each in permissions if each in asked)
    return Caller(user_id, session_id, permissions, name)


# Nearly all users hold one of a few sets of roles.
@lru_cache(256)
def _permissions(held: str | None) -> frozenset[Permission]:
    granted: dict[str, set[str]] = {}
    for role, permission in split_rows(held):
        granted.setdefault(role, set()).add(permission)
    return frozenset(each for role, names in granted.items() for each in effective(role, names))


async def permissions_in(
    session: AsyncSession, *, user_id: int, session_id: int
) -> frozenset[Permission]:
    """Return the permissions of a login session in a transaction; else raise InvalidToken."""
    who = {"user_id": user_id, "session_id": session_id}
    await session.flush()
    rows = await session_transaction(
        session, lambda transaction: transaction.rows(CALLER, **caller_parameters(**who))
    )
    return caller_of(rows, **who).permissions


def recheck_caller(
    transaction: Transaction,
    caller: Caller,
    any_of: Collection[Permission] = (),
    *,
    exclusive: bool = False,
) -> Caller:
    """Return the caller as the database knows them now; raise InvalidToken or InsufficientScope
    when they may not do this any more.

    The caller's user and session stay locked until the transaction ends: `exclusive` for a
    transaction that may change them, or shared with the caller's other requests.
    """
    parameters = caller_parameters(user_id=caller.user_id, session_id=caller.session_id)
    # On a cluster the session is also written, and so locked for that.
    read = _EXCLUSIVE if exclusive or transaction.is_cluster else _SHARED
    rows = read.rows(transaction, parameters)
    current_caller = caller_of(rows, user_id=caller.user_id, session_id=caller.session_id)
    if any_of:
        require_any(current_caller, *any_of)
    guards.touch_session(transaction, caller.session_id)
    return current_caller


async def authorize_write(
    session: AsyncSession,
    caller: Caller,
    any_of: Collection[Permission] = (),
    *,
    may_end_admin: bool = False,
) -> Caller:
    """Lock the caller and check again, as the first statement of this session's transaction, that
    they may write; return them, or raise InvalidToken or InsufficientScope.

    Transactions that can give or take rights (`any_of` holds one of GRANTING, or they may end an
    administrator's account) first take one lock, one after the other: no rights change between
    what such a transaction reads of its caller and what it changes.
    """
    if may_end_admin or not GRANTING.isdisjoint(any_of):
        await session_transaction(session, lock_rights)
    return await session_transaction(
        session, partial(recheck_caller, caller=caller, any_of=any_of, exclusive=True)
    )


def lock_rights(transaction: Transaction) -> None:
    """Lock the rights of all users against changes until the transaction ends.

    The lock is the row of the role `admin`; on a cluster it is also written.
    """
    [(role_id,)] = transaction.rows(_RIGHTS_LOCK)
    guards.touch_rights(transaction, role_id)
