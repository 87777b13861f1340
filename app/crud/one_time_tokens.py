"""One-time tokens: the secrets of links in mails, stored nowhere but in the mails.

A mail's row holds a nonce and the id of a secret key; a process that has the key derives the token
from them when it sends the mail. The table holds the token's SHA-256. Neither is usable alone.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Collection, Sequence
from datetime import timedelta
from typing import Any, cast

from sqlalchemy import ColumnElement, CursorResult, delete, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.exceptions import InvalidOneTimeToken
from app.core.keyring import SecretKeys
from app.db import guards
from app.models.base import utc_now
from app.models.one_time_tokens import OneTimeToken, Purpose
from app.models.users import User, UserRole

LIFETIMES = {
    Purpose.verify_email: timedelta(days=3),
    Purpose.change_email: timedelta(days=1),
    Purpose.reset_password: timedelta(hours=1),
    Purpose.invitation: timedelta(days=7),
}
_TOKEN = re.compile(r"[0-9a-f]{64}")


async def issue(
    session: AsyncSession,
    *,
    keys: SecretKeys,
    user: User,
    purpose: Purpose,
    email: str | None = None,
) -> dict[str, str]:
    """Create a token for a (locked or new) user, and withdraw others of the same purpose.

    Return what a mail to `email` (default: the user's) needs to derive the token from.
    """
    # Of two links for one purpose, requested at once, the later one is valid.
    await guards.touch_user(session, user.id)
    nonce, key = secrets.token_hex(16), keys.newest_id
    await withdraw(session, user=user, purposes=[purpose])
    session.add(
        OneTimeToken(
            user_id=user.id,
            purpose=purpose,
            token_hash=_hash(_derive(keys, purpose, nonce, key)),
            email=email or user.email,
            expires_at=utc_now() + LIFETIMES[purpose],
        )
    )
    await session.flush()
    return {"purpose": purpose, "nonce": nonce, "key": key}


def token_of(keys: SecretKeys, values: dict[str, Any]) -> str | None:
    """Return the token of a mail's values; None when they hold none, or its key is not in use."""
    if keys.find(values.get("key", "")) is None:
        return None
    return _derive(keys, Purpose(values["purpose"]), values["nonce"], values["key"])


async def withdraw(session: AsyncSession, *, user: User, purposes: Collection[Purpose]) -> None:
    """Withdraw a user's links for some purposes."""
    await session.execute(
        delete(OneTimeToken).where(
            OneTimeToken.user_id == user.id, OneTimeToken.purpose.in_(purposes)
        )
    )


async def outstanding(
    session: AsyncSession, *, user: User, purposes: Collection[Purpose]
) -> Sequence[Purpose]:
    """Return those of the purposes for which a (locked) user has a valid link."""
    found = await session.scalars(
        select(OneTimeToken.purpose)
        .where(OneTimeToken.user_id == user.id, OneTimeToken.purpose.in_(purposes), *_is_unused())
        .order_by(OneTimeToken.id)
    )
    return found.all()


async def withdraw_of_role(
    session: AsyncSession, *, role_id: int, purposes: Collection[Purpose]
) -> None:
    """Withdraw the links for some purposes of all users who have a role."""
    holders = select(UserRole.user_id).where(UserRole.role_id == role_id)
    await session.execute(
        delete(OneTimeToken).where(
            OneTimeToken.user_id.in_(holders), OneTimeToken.purpose.in_(purposes)
        ),
        execution_options={"synchronize_session": False},
    )


async def withdraw_everybodys(session: AsyncSession) -> int:
    """Withdraw every link; return how many there were."""
    gone = await session.execute(delete(OneTimeToken))
    return cast("CursorResult[Any]", gone).rowcount


async def owner(session: AsyncSession, *, token: str, purposes: Collection[Purpose]) -> User:
    """Return the owner of an unused token; else raise InvalidOneTimeToken. Lock nothing."""
    owning = select(User).join(OneTimeToken, OneTimeToken.user_id == User.id)
    user = await session.scalar(owning.where(*_is_good(token, purposes), User.is_active))
    if user is None:
        raise InvalidOneTimeToken
    return user


async def use(
    session: AsyncSession, *, token: str, purposes: Collection[Purpose]
) -> tuple[OneTimeToken, User]:
    """Use up a token; return it and its owner, locked.

    Raise InvalidOneTimeToken for any defect of the token or of its owner, and for all but one of
    several concurrent uses.
    """
    is_good = _is_good(token, purposes)
    of_token = OneTimeToken.token_hash == _hash(token)
    # The user before their tokens, as `issue` does: two orders could deadlock.
    user_id = select(OneTimeToken.user_id).where(of_token).scalar_subquery()
    owning = select(User).where(User.id == user_id, User.is_active).with_for_update()
    user = await session.scalar(owning)
    used = await session.execute(
        update(OneTimeToken).where(*is_good).values(used_at=utc_now()),
        execution_options={"synchronize_session": False},
    )
    if user is None or not cast("CursorResult[Any]", used).rowcount:
        raise InvalidOneTimeToken
    found = await session.scalars(select(OneTimeToken).where(of_token))
    return found.one(), user


def _is_good(token: str, purposes: Collection[Purpose]) -> list[ColumnElement[bool]]:
    """Return the conditions for the row of a token that may be used now."""
    # A malformed token costs no statement.
    if not _TOKEN.fullmatch(token):
        raise InvalidOneTimeToken
    return [
        OneTimeToken.token_hash == _hash(token),
        OneTimeToken.purpose.in_(purposes),
        *_is_unused(),
    ]


def _is_unused() -> list[ColumnElement[bool]]:
    return [OneTimeToken.used_at.is_(None), OneTimeToken.expires_at > utc_now()]


def _derive(keys: SecretKeys, purpose: Purpose, nonce: str, key: str) -> str:
    return keys.mac(f"one-time {purpose}", nonce, key=key)


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
