"""Logging in: the use case that spans accounts, password hashes and sessions."""

from __future__ import annotations

from app.core.exceptions import InvalidCredentials
from app.core.security import Passwords
from app.crud import sessions, users
from app.database import Database
from app.models.sessions import LoginSession

_TRIES = 3


async def log_in(
    database: Database, *, passwords: Passwords, email: str, password: str, days: int
) -> LoginSession:
    """Begin a session, or InvalidCredentials: the same in text and time for every reason.

    No transaction is open while the password is hashed: look the account up, verify, write. When
    the account changed in between (a parallel login stored a better hash, or the password was
    changed), all of it is done again with what stands there now.
    """
    for _ in range(_TRIES):
        async with database.begin(readonly=True) as session:
            account = await users.find_credentials(session, email=email)
        stored = account.password_hash if account else None
        matches, better_hash = await passwords.verify(password, stored)
        if account is None or not account.is_active or not matches:
            break
        async with database.begin() as session:
            user = await users.lock_unchanged(session, account)
            if user is None:
                continue
            if better_hash:
                user.password_hash = better_hash
            return await sessions.begin(session, user_id=user.id, days=days)
    raise InvalidCredentials
