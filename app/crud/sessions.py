"""Sessions: one for each login, looked up on every request, ended at once."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import Update, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.context import request_context
from app.core.permissions import Caller
from app.core.security import AccessClaims
from app.models.base import utc_now
from app.models.roles import Role, RolePermission, effective
from app.models.sessions import MAX_IP, MAX_USER_AGENT, LoginSession
from app.models.users import User, UserRole


async def begin(session: AsyncSession, *, user_id: int, days: int) -> LoginSession:
    """A new session, for the client the request came from."""
    context, now = request_context(), utc_now()
    login = LoginSession(
        user_id=user_id,
        last_used_at=now,
        expires_at=now + timedelta(days=days),
        ip=context.ip[:MAX_IP],
        user_agent=context.user_agent[:MAX_USER_AGENT],
    )
    session.add(login)
    await session.flush()
    return login


async def identify(session: AsyncSession, claims: AccessClaims) -> Caller | None:
    """The caller behind a token, as things stand now; None when the session is over, or its
    user disabled or deleted. One statement, whatever the number of roles."""
    statement = (
        select(Role.name, RolePermission.permission)
        .select_from(LoginSession)
        .join(User, User.id == LoginSession.user_id)
        .outerjoin(UserRole, UserRole.user_id == User.id)
        .outerjoin(Role, Role.id == UserRole.role_id)
        .outerjoin(RolePermission, RolePermission.role_id == Role.id)
        .where(
            LoginSession.id == claims.session_id,
            LoginSession.user_id == claims.user_id,
            LoginSession.ended_at.is_(None),
            LoginSession.expires_at > utc_now(),
            User.is_active,
        )
    )
    rows = (await session.execute(statement)).all()
    if not rows:
        return None
    granted: dict[str, set[str]] = {}
    for role, permission in rows:
        if role is not None:
            granted.setdefault(role, set()).add(permission)
    permissions = (name for role, names in granted.items() for name in effective(role, names))
    return Caller(claims.user_id, claims.session_id, frozenset(permissions))


async def end(session: AsyncSession, *, session_id: int) -> None:
    """End one session; the next request with its token is refused."""
    await session.execute(_ending().where(LoginSession.id == session_id))


async def end_all(session: AsyncSession, *, user_id: int) -> None:
    """End every session of a user."""
    await session.execute(_ending().where(LoginSession.user_id == user_id))


def _ending() -> Update:
    return update(LoginSession).where(LoginSession.ended_at.is_(None)).values(ended_at=utc_now())
