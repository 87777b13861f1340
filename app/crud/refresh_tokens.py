"""Refresh tokens: each is used once, and every use gives the next.

The next one is derived from the one before and a secret key. A client that sends the same token
again within the grace window (tabs that refresh together, a retry after a lost reply) gets the same
response, though only hashes are stored. A later use means that the token was copied
(docs/adr/0014-refresh-tokens.md).
"""

from __future__ import annotations

import hashlib
import secrets
from base64 import urlsafe_b64encode
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, cast

from sqlalchemy import CursorResult, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.exceptions import FieldError, Invalid, InvalidRefreshToken
from app.core.keyring import SecretKeys
from app.core.permissions import Permission
from app.crud import audit_events, authorization, outbox
from app.db.engine import Database
from app.db.rows import database_now
from app.models.audit_events import AuditAct
from app.models.outbox import MailKind
from app.models.refresh_tokens import RefreshToken
from app.models.sessions import LoginSession
from app.models.users import User

_BYTES = 32
_PURPOSE = "refresh token"


@dataclass(frozen=True, slots=True)
class Grant:
    """What a login or a refresh gives: a session, and the token that keeps it going."""

    user_id: int
    session_id: int
    refresh_token: str
    permissions: frozenset[Permission]


async def first(session: AsyncSession, *, login: LoginSession) -> Grant:
    """Create the first token of a new (flushed) session."""
    return await _give(session, login, secrets.token_urlsafe(_BYTES), now=login.created_at)


async def renew(
    database: Database,
    *,
    token: str,
    keys: SecretKeys,
    idle_days: int,
    days: int,
    grace_seconds: int,
    scope: str = "",
) -> Grant:
    """Use a token up: its session lives on, with the next token.

    Raise InvalidRefreshToken when it is unknown, its session over, its user disabled or deleted;
    Invalid for a `scope` that is more than the session has (RFC 6749 §6).
    A token that was used longer than the grace window ago also ends its session: that, the audit
    event and the mail are committed before the refusal.
    """
    async with database.begin() as session:
        # The user before the session: the order of locks that every transaction keeps.
        user = await _locked_user(session, token)
        login = await _locked_session(session, token)
        # After the wait for a lock the time is another; the token may have been used elsewhere.
        now = await database_now(session)
        if user is None or login is None or not login.is_live(now):
            raise InvalidRefreshToken
        if await _use_up(session, token, now):
            login.last_used_at = now
            login.expires_at = min(
                now + timedelta(days=idle_days), login.created_at + timedelta(days=days)
            )
            token = _text(keys.mac(_PURPOSE, token))
            return _within(await _give(session, login, token, now=now), scope)
        used, used_at = await _use_of(session, token)
        if now < used_at + timedelta(seconds=grace_seconds):
            token = await _unused(session, used, token, keys)
            return _within(await _granted(session, login, token), scope)
        login.ended_at = now
        audit_events.record(session, AuditAct.session_reused, login, user_id=user.id)
        outbox.enqueue(session, MailKind.session_reused, user)
    raise InvalidRefreshToken


async def _locked_user(session: AsyncSession, token: str) -> User | None:
    """Return the user of a token, if they may still log in; locked against changes."""
    its_user = (
        select(LoginSession.user_id)
        .join(RefreshToken, RefreshToken.session_id == LoginSession.id)
        .where(_is(token))
        .scalar_subquery()
    )
    statement = select(User).where(User.id == its_user, User.is_active)
    return await session.scalar(statement.with_for_update(read=True))


async def _locked_session(session: AsyncSession, token: str) -> LoginSession | None:
    """Return the session of a token, locked: other uses of its tokens wait."""
    its_session = select(RefreshToken.session_id).where(_is(token)).scalar_subquery()
    statement = select(LoginSession).where(LoginSession.id == its_session)
    return await session.scalar(statement.with_for_update())


async def _use_up(session: AsyncSession, token: str, now: datetime) -> bool:
    """Mark the token as used; return whether it was unused."""
    unused = update(RefreshToken).where(_is(token), RefreshToken.used_at.is_(None))
    done = await session.execute(unused.values(used_at=now))
    return bool(cast("CursorResult[Any]", done).rowcount)


async def _use_of(session: AsyncSession, token: str) -> tuple[RefreshToken, datetime]:
    """Return the row of a used token, and the time of its use."""
    used = await session.scalar(select(RefreshToken).where(_is(token)))
    assert used is not None
    assert used.used_at is not None
    return used, used.used_at


async def _give(session: AsyncSession, login: LoginSession, token: str, *, now: datetime) -> Grant:
    session.add(RefreshToken(session_id=login.id, token_hash=_hash(token), created_at=now))
    return await _granted(session, login, token)


async def _granted(session: AsyncSession, login: LoginSession, token: str) -> Grant:
    who = {"user_id": login.user_id, "session_id": login.id}
    permissions = await authorization.permissions_in(session, **who)
    return Grant(**who, refresh_token=token, permissions=permissions)


def _within(grant: Grant, scope: str) -> Grant:
    if not grant.permissions.issuperset(scope.split()):
        raise Invalid([FieldError("scope", "scope_not_granted")])
    return grant


async def _unused(session: AsyncSession, used: RefreshToken, token: str, keys: SecretKeys) -> str:
    """Return the session's unused token that follows a used one: its successor or, when another
    tab has used that too, a later one.

    Raise InvalidRefreshToken when the key it was derived by is not in use any more.
    """
    later = select(RefreshToken.token_hash, RefreshToken.used_at).where(
        RefreshToken.session_id == used.session_id, RefreshToken.id > used.id
    )
    used_at: dict[str, datetime | None] = {row[0]: row[1] for row in await session.execute(later)}
    while True:
        # By any key: SECRET_KEY may have been exchanged since.
        derived = [_text(mac) for mac in keys.macs(_PURPOSE, token)]
        stored = [successor for successor in derived if _hash(successor) in used_at]
        if not stored:
            raise InvalidRefreshToken
        token = stored[0]
        if used_at[_hash(token)] is None:
            return token


def _is(token: str) -> Any:
    return RefreshToken.token_hash == _hash(token)


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def _text(mac: str) -> str:
    """Return a derived token in the form of a random one."""
    return urlsafe_b64encode(bytes.fromhex(mac)).rstrip(b"=").decode()
