"""Sessions: one for each login, looked up on every request, ended at once."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, cast

from sqlalchemy import ColumnElement, CursorResult, Update, bindparam, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.context import request_context
from app.core.exceptions import FieldError, Invalid, InvalidToken, NotFound
from app.core.permissions import Caller
from app.core.security import AccessClaims, AccessTokens
from app.crud import audit_events, authorization, refresh_tokens
from app.db import guards
from app.db.paginated_queries import PaginatedQuery
from app.db.pagination import PageResult, Paginator
from app.db.projections import Projection
from app.db.queries import QueryRunner
from app.db.write_counters import WriteKind, Written
from app.models.audit_events import AuditAct
from app.models.base import UtcDateTime, utc_now
from app.models.sessions import MAX_IP, MAX_USER_AGENT, LoginSession
from app.schemas import sessions as schemas

# Per user: one more login ends the oldest session.
MAX_LIVE = 100


async def start_login_session(
    session: AsyncSession, *, user_id: int, idle_days: int, days: int, scope: str | None = None
) -> refresh_tokens.Grant:
    """Start a session of a (locked) user for the client of the request; return its first grant.

    The session has at most the permissions of `scope`; raise Invalid for a scope of which the
    user has none.
    """
    # Who ends all sessions of the user, or counts them, may not miss this one.
    await guards.touch_user(session, user_id)
    context, now = request_context(), utc_now()
    login = LoginSession(
        user_id=user_id,
        created_at=now,
        last_used_at=now,
        expires_at=now + timedelta(days=min(idle_days, days)),
        ip=context.ip[:MAX_IP],
        user_agent=context.user_agent[:MAX_USER_AGENT],
        scope=scope,
    )
    session.add(login)
    await session.flush()
    await _end_the_oldest(session, user_id)
    grant = await refresh_tokens.first(session, login=login)
    if scope is not None and not grant.permissions:
        raise Invalid([FieldError("scope", "scope_not_granted")])
    return grant


async def _end_the_oldest(session: AsyncSession, user_id: int) -> None:
    live = select(LoginSession.id).where(
        LoginSession.user_id == user_id, LoginSession.ended_at.is_(None)
    )
    newest_first = live.order_by(LoginSession.id.desc())
    too_many = (await session.scalars(newest_first.offset(MAX_LIVE).limit(MAX_LIVE))).all()
    if too_many:
        await session.execute(_ending().where(LoginSession.id.in_(too_many)))


async def ips_of(session: AsyncSession, *, user_id: int) -> Sequence[str]:
    """Return the IP addresses of a user's live sessions."""
    live = select(LoginSession.ip).where(
        LoginSession.user_id == user_id, LoginSession.ended_at.is_(None)
    )
    return (await session.scalars(live.limit(MAX_LIVE))).all()


async def log_out(session: AsyncSession, *, caller: Caller) -> None:
    """End the caller's session; the next request with one of its tokens is refused."""
    await _end(session, caller, LoginSession.id == caller.session_id)


async def end(session: AsyncSession, *, caller: Caller, session_id: int) -> None:
    """End one of the caller's sessions; raise NotFound if there is no such live session."""
    if not await _end(session, caller, LoginSession.id == session_id):
        raise NotFound


async def end_others(session: AsyncSession, *, caller: Caller) -> None:
    """End all of the caller's sessions but the one they ask from."""
    await _end(session, caller, LoginSession.id != caller.session_id)


async def _end(session: AsyncSession, caller: Caller, which: ColumnElement[bool]) -> int:
    """End the caller's live sessions that match, and record each; return how many there were."""
    now = utc_now()
    live = select(LoginSession).where(
        which,
        LoginSession.user_id == caller.user_id,
        LoginSession.ended_at.is_(None),
        LoginSession.expires_at > now,
    )
    # In one order, so that two who end the same ones do not wait for each other.
    found = (await session.scalars(live.order_by(LoginSession.id).with_for_update())).all()
    for login in found:
        login.ended_at = now
        audit_events.record(session, AuditAct.session_ended, login)
    await session.flush()
    return len(found)


async def end_all(session: AsyncSession, *, user_id: int, but: int | None = None) -> None:
    """End every session of a user, or every other than `but`."""
    ending = _ending().where(LoginSession.user_id == user_id)
    await session.execute(ending if but is None else ending.where(LoginSession.id != but))


async def end_everybodys(session: AsyncSession) -> int:
    """End every live session; return how many there were."""
    ended = await session.execute(_ending().where(LoginSession.expires_at > utc_now()))
    return cast("CursorResult[Any]", ended).rowcount


def _ending() -> Update:
    return update(LoginSession).where(LoginSession.ended_at.is_(None)).values(ended_at=utc_now())


_PROJECTION = Projection(schemas.Session, LoginSession, without=["current"])
_LIVE_OF_USER = PaginatedQuery(
    name="sessions",
    filtered_ids=select(LoginSession.id).where(
        LoginSession.user_id == bindparam("user_id"),
        LoginSession.ended_at.is_(None),
        LoginSession.expires_at > bindparam("now", type_=UtcDateTime()),
    ),
    id=LoginSession.id,
    sort_columns={"created_at": LoginSession.created_at, "last_used_at": LoginSession.last_used_at},
    projection=_PROJECTION,
)


async def list_own(
    paginator: Paginator, *, caller: Caller, query: schemas.SessionQuery
) -> PageResult[dict[str, Any]]:
    """Return a page of the caller's live sessions, as `schemas.sessions.Session` describes them."""
    # In whole seconds: what is cached is found again by these values.
    parameters = {"user_id": caller.user_id, "now": utc_now().replace(microsecond=0)}
    page = await paginator.paginate(_LIVE_OF_USER, query, parameters)
    return page.of(lambda item: item | {"current": item["id"] == caller.session_id})


# The writes that can change what a token authenticates. New sessions and accounts cannot.
_INVALIDATING_WRITES: tuple[Written, ...] = (
    ("sessions", WriteKind.change),
    ("users", WriteKind.change),
    ("roles", WriteKind.change),
    *(("user_roles", kind) for kind in WriteKind),
    *(("role_permissions", kind) for kind in WriteKind),
)
CALLER_CACHE_SECONDS = 0.9
_MAX_CACHED = 5_000


@dataclass(slots=True)
class _CacheEntry:
    claims: AccessClaims
    caller: Caller
    version: int
    until: float


class TokenAuthenticator:
    """Authenticate tokens against the current state of the database.

    Cache a result for less than a second, and no longer than until this process writes
    anything that could change it: what this process revokes ends at once, what another process
    revokes within a second. The cache is not shared.
    """

    def __init__(self, reader: QueryRunner, tokens: AccessTokens) -> None:
        self._reader = reader
        self._tokens = tokens
        self._entries: dict[str, _CacheEntry] = {}

    async def authenticate(self, token: str) -> Caller:
        """Return the caller; raise InvalidToken for a bad token, a session that is over, or a user
        who is disabled or deleted."""
        version = self._reader.write_counters.count_of(*_INVALIDATING_WRITES)
        entry, now = self._entries.get(token), time.monotonic()
        if entry is not None and entry.version == version and now < entry.until:
            return entry.caller
        # A token that was verified once is good until it expires.
        claims = entry.claims if entry else self._tokens.verify(token)
        if claims.expires_at <= time.time():
            raise InvalidToken
        caller = await self.of(user_id=claims.user_id, session_id=claims.session_id)
        if len(self._entries) >= _MAX_CACHED:
            self._entries.clear()
        until = now + min(CALLER_CACHE_SECONDS, claims.expires_at - time.time())
        self._entries[token] = _CacheEntry(claims, caller, version, until)
        return caller

    async def of(self, *, user_id: int, session_id: int) -> Caller:
        """Return the caller of a session as the database knows them; else raise InvalidToken."""
        who = {"user_id": user_id, "session_id": session_id}
        rows = await self._reader.rows(authorization.CALLER, authorization.caller_parameters(**who))
        return authorization.caller_of(rows, **who)
