"""Logging in: the use case that spans accounts, password hashes and sessions."""

from __future__ import annotations

from app.core.exceptions import InvalidCredentials
from app.core.security import Passwords
from app.crud import audit, sessions, users
from app.crud.refresh import Grant
from app.database import Database
from app.models.audit import AuditAct
from app.models.users import email_key
from app.schemas.users import normal_email
from app.throttling import Attempt

_TRIES = 3


async def log_in(
    database: Database,
    *,
    passwords: Passwords,
    attempt: Attempt,
    email: str,
    password: str,
    idle_days: int,
    days: int,
) -> Grant:
    """Begin a session, or InvalidCredentials: the same in text and time for every reason.

    No transaction is open while the password is hashed: look the account up, verify, write. When
    the account changed in between (a parallel login stored a better hash, or the password was
    changed), all of it is done again with what stands there now. Raises TooManyRequests, and
    Overloaded: hold a slot for the address from before anything is looked up.
    """
    account = await _admitted(database, attempt, email)
    for _ in range(_TRIES):
        stored = account.password_hash if account else None
        matches, better_hash = await passwords.verify(password, stored)
        if account is None or not account.is_active or not matches:
            break
        async with database.begin() as session:
            user = await users.lock_unchanged(session, account)
            if user is None:
                account = await users.find_credentials(session, email=email)
                continue
            if better_hash:
                user.password_hash = better_hash
            grant = await sessions.begin(session, user_id=user.id, idle_days=idle_days, days=days)
            act = AuditAct.login_succeeded
            audit.record(session, act, user, actor_id=user.id, session_id=grant.session_id)
        await attempt.trust(grant.user_id)
        return grant
    # One statement and one commit, whether there is an account or not.
    async with database.begin() as session:
        audit.record(session, AuditAct.login_failed, ("user", account.id) if account else None)
    raise InvalidCredentials


async def _admitted(database: Database, attempt: Attempt, email: str) -> users.Credentials | None:
    """Count the try, and find the account. The same is looked up whether there is one or not."""
    async with database.begin(readonly=True) as session:
        account = await users.find_credentials(session, email=email)
        user_id = account.id if account else None
        ips = await sessions.ips_of(session, user_id=user_id or 0)
    # What is no address is no account's, and makes no counters of its own.
    key = email_key(normal_email(email) or "")
    await attempt.on_account(key, known_ips=ips, user_id=user_id)
    return account
