"""Logging in: the use case that spans accounts, password hashes and sessions."""

from __future__ import annotations

from typing import Any

from app.core.exceptions import Invalid, InvalidCredentials
from app.core.security import Passwords
from app.crud import audit_events, sessions, users
from app.crud.refresh_tokens import Grant
from app.db.engine import Database
from app.models.audit_events import AuditAct
from app.models.users import email_key
from app.rate_limits.limiter import RateLimitAttempt
from app.schemas.emails import normal_email

_TRIES = 3


async def log_in(
    database: Database,
    *,
    passwords: Passwords,
    attempt: RateLimitAttempt,
    email: str,
    password: str,
    **session_options: Any,
) -> Grant:
    """Start a session (`session_options` are parameters of `sessions.start_login_session`), or
    raise InvalidCredentials: the same in text and time for every reason.

    No transaction is open while the password is hashed: look the account up, verify, write. When
    the account changed in between (a parallel login stored a better hash, or the password was
    changed), all of it is done again with what stands there now. Raises TooManyRequests, Invalid
    for a scope of which nothing is granted, and Overloaded: hold a turn for the address from
    before anything is looked up.
    """
    account = await _count_attempt_and_find_account(database, attempt, email)
    refusal: Exception = InvalidCredentials()
    for _ in range(_TRIES):
        stored = account.password_hash if account else None
        matches, better_hash = await passwords.verify(password, stored)
        if account is None or not account.is_active or not matches:
            break
        try:
            grant = await _begin(database, account, better_hash, session_options)
        except Invalid as error:
            refusal = error
            break
        if grant is not None:
            await attempt.trust(grant.user_id)
            return grant
        async with database.begin(readonly=True) as looking:
            account = await users.find_credentials(looking, email=email)
    await _record_failure(database, account)
    raise refusal


async def _record_failure(database: Database, account: users.Credentials | None) -> None:
    """Record a failed login, by the same statement and commit with or without an account."""
    async with database.begin() as session:
        audit_events.record(
            session, AuditAct.login_failed, ("user", account.id) if account else None
        )


async def _begin(
    database: Database,
    account: users.Credentials,
    better_hash: str | None,
    session_options: dict[str, Any],
) -> Grant | None:
    """Begin a session of an account; return None if that has changed meanwhile."""
    async with database.begin() as session:
        user = await users.lock_unchanged(session, account)
        if user is None:
            return None
        if better_hash:
            user.password_hash = better_hash
        grant = await sessions.start_login_session(session, user_id=user.id, **session_options)
        act = AuditAct.login_succeeded
        audit_events.record(session, act, user, actor_id=user.id, session_id=grant.session_id)
    return grant


async def _count_attempt_and_find_account(
    database: Database, attempt: RateLimitAttempt, email: str
) -> users.Credentials | None:
    """Count the attempt and return the account; run the same queries if there is none."""
    async with database.begin(readonly=True) as session:
        account = await users.find_credentials(session, email=email)
        user_id = account.id if account else None
        ips = await sessions.ips_of(session, user_id=user_id or 0)
    # An invalid address belongs to no account, and gets no counters of its own.
    key = email_key(normal_email(email) or "")
    await attempt.on_account(key, known_ips=ips, user_id=user_id)
    return account
