"""Sessions: one for each login, looked up on every request, ended at once."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import Update, bindparam, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.context import request_context
from app.core.exceptions import InvalidToken
from app.core.permissions import Caller
from app.core.security import AccessClaims, AccessTokens
from app.database import Act, Written
from app.models.base import UtcDateTime, utc_now
from app.models.roles import Role, RolePermission, effective
from app.models.sessions import MAX_IP, MAX_USER_AGENT, LoginSession
from app.models.users import User, UserRole
from app.reading import Query, Reader


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


async def end(session: AsyncSession, *, session_id: int) -> None:
    """End one session; the next request with its token is refused."""
    await session.execute(_ending().where(LoginSession.id == session_id))


async def end_all(session: AsyncSession, *, user_id: int) -> None:
    """End every session of a user."""
    await session.execute(_ending().where(LoginSession.user_id == user_id))


def _ending() -> Update:
    return update(LoginSession).where(LoginSession.ended_at.is_(None)).values(ended_at=utc_now())


_IDENTITY = Query(
    select(Role.name, RolePermission.permission)
    .select_from(LoginSession)
    .join(User, User.id == LoginSession.user_id)
    .outerjoin(UserRole, UserRole.user_id == User.id)
    .outerjoin(Role, Role.id == UserRole.role_id)
    .outerjoin(RolePermission, RolePermission.role_id == Role.id)
    .where(
        LoginSession.id == bindparam("session_id"),
        LoginSession.user_id == bindparam("user_id"),
        LoginSession.ended_at.is_(None),
        LoginSession.expires_at > bindparam("now", type_=UtcDateTime()),
        User.is_active,
    )
)
# What a transaction must write to change who somebody is. New sessions and accounts do not.
_SHAPING: tuple[Written, ...] = (
    ("sessions", Act.change),
    ("users", Act.change),
    ("roles", Act.change),
    *(("user_roles", act) for act in Act),
    *(("role_permissions", act) for act in Act),
)
REMEMBER_SECONDS = 0.9
_MAX_REMEMBERED = 5_000


@dataclass(slots=True)
class _Remembered:
    claims: AccessClaims
    caller: Caller
    version: int
    until: float


class Identities:
    """Who is behind a token, as things stand now.

    Remembered for less than a second, and no longer than until this process writes anything
    that could change the answer: what is revoked here is over at once, what another process
    revokes within a second. Nothing outlives the process.
    """

    def __init__(self, reader: Reader, tokens: AccessTokens) -> None:
        self._reader = reader
        self._tokens = tokens
        self._remembered: dict[str, _Remembered] = {}

    async def caller(self, token: str) -> Caller:
        """The caller, or InvalidToken: a bad token, a session that is over, a user who is
        disabled or deleted."""
        version = self._reader.changes.version(*_SHAPING)
        known, now = self._remembered.get(token), time.monotonic()
        if known is not None and known.version == version and now < known.until:
            return known.caller
        # A token that was verified once is good until it expires.
        claims = known.claims if known else self._tokens.verify(token)
        if claims.expires_at <= time.time():
            raise InvalidToken
        caller = await self._look_up(claims)
        if len(self._remembered) >= _MAX_REMEMBERED:
            self._remembered.clear()
        until = now + min(REMEMBER_SECONDS, claims.expires_at - time.time())
        self._remembered[token] = _Remembered(claims, caller, version, until)
        return caller

    async def _look_up(self, claims: AccessClaims) -> Caller:
        given = {"session_id": claims.session_id, "user_id": claims.user_id, "now": utc_now()}
        rows = await self._reader.rows(_IDENTITY, given)
        if not rows:
            raise InvalidToken
        granted: dict[str, set[str]] = {}
        for role, permission in rows:
            if role is not None:
                granted.setdefault(role, set()).add(permission)
        permissions = (name for role, names in granted.items() for name in effective(role, names))
        return Caller(claims.user_id, claims.session_id, frozenset(permissions))
