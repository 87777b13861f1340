"""Accounts: create, find, update, delete and restore them."""

from __future__ import annotations

from typing import Any, NamedTuple

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import selectinload

from app.core.context import request_context
from app.core.exceptions import (
    EmailTaken,
    FieldError,
    Invalid,
)
from app.core.i18n import DEFAULT_LOCALE
from app.core.keyring import SecretKeys
from app.core.passwords import MAX_PASSWORD, MIN_LENGTH, Policy, weaknesses
from app.core.permissions import ADMIN_ROLE, USER_ROLE
from app.core.security import Passwords
from app.crud import admins, audit_events, idempotency_keys, one_time_tokens, outbox, sessions, tags
from app.db import trash
from app.db.rows import changed_fields, flush_and_expunge, flush_or_conflict, one_or_404
from app.models.audit_events import AuditAct
from app.models.base import INCLUDE_DELETED
from app.models.one_time_tokens import Purpose
from app.models.outbox import MailKind
from app.models.roles import Role
from app.models.users import User, email_key
from app.schemas.emails import normal_email
from app.schemas.users import (
    ProfileUpdate,
    Registration,
    UserCreate,
    UserUpdate,
)

_EMAIL_CONFLICT = {"uq_users_live_email": EmailTaken}
_WITH_PERMISSIONS = selectinload(User.roles).selectinload(Role.granted)


async def register(
    session: AsyncSession,
    *,
    data: Registration,
    passwords: Passwords,
    policy: Policy,
    keys: SecretKeys,
) -> User:
    """Create an account with the role `user`, and its welcome mail with a link that confirms the
    address, in one transaction.

    Raise Invalid for a weak password, and EmailTaken.
    """
    refuse_weak(data.password, policy, email=data.email, name=data.name)
    password_hash = await passwords.hash(data.password)
    user = User(
        **data.model_dump(exclude={"password"}),
        email_key=email_key(data.email),
        password_hash=password_hash,
        locale=request_context().locale,
    )
    await _add(session, user, roles=[USER_ROLE])
    audit_events.record(session, AuditAct.user_registered, user, actor_id=user.id)
    values = await one_time_tokens.issue(
        session, keys=keys, user=user, purpose=Purpose.verify_email
    )
    outbox.enqueue(session, MailKind.welcome, user, **values)
    await session.flush()
    return user


async def create(session: AsyncSession, *, data: UserCreate, keys: SecretKeys) -> User:
    """Create an account with the role `user` and no password, and the mail that invites the user
    to set one; raise EmailTaken."""
    user = User(**data.model_dump(), email_key=email_key(data.email))
    await _add(session, user, roles=[USER_ROLE])
    audit_events.record(session, AuditAct.user_created, user, roles=[USER_ROLE])
    values = await one_time_tokens.issue(session, keys=keys, user=user, purpose=Purpose.invitation)
    outbox.enqueue(session, MailKind.invitation, user, **values)
    await session.flush()
    return user


async def create_admin(
    session: AsyncSession,
    *,
    email: str,
    name: str,
    password_hash: str,
    locale: str = DEFAULT_LOCALE,
) -> User:
    """Create an account with the role `admin`; raise EmailTaken."""
    user = User(
        email=email,
        email_key=email_key(email),
        name=name,
        password_hash=password_hash,
        locale=locale,
    )
    roles = [ADMIN_ROLE, USER_ROLE]
    await _add(session, user, roles=roles)
    audit_events.record(session, AuditAct.user_created, user, roles=roles)
    return user


async def _add(session: AsyncSession, user: User, *, roles: list[str]) -> None:
    user.roles = list(await session.scalars(select(Role).where(Role.name.in_(roles))))
    session.add(user)
    await flush_or_conflict(session, _EMAIL_CONFLICT)


def refuse_weak(
    password: str, policy: Policy, *, email: str, name: str, field: str = "password"
) -> None:
    """Raise Invalid, with every reason, for a password the policy refuses; `field` held it."""
    bounds = {"min": MIN_LENGTH[policy], "max": MAX_PASSWORD}
    found = weaknesses(password, policy, email, name)
    if found:
        raise Invalid([FieldError(field, reason, bounds) for reason in found])


class Credentials(NamedTuple):
    """What a password is verified against, of an account that was not locked."""

    id: int
    password_hash: str | None
    is_active: bool


async def find_credentials(session: AsyncSession, *, email: str) -> Credentials | None:
    """Return the credentials of the live account with an address, disabled or not, if there is one.

    Read three columns, no object: loading a user takes long enough to disclose by its time that
    there is one.
    """
    known = normal_email(email)
    if known is None:
        return None
    columns = select(User.id, User.password_hash, User.is_active)
    found = await session.execute(columns.where(User.live_email == email_key(known)))
    row = found.one_or_none()
    return Credentials(*row) if row else None


async def lock_unchanged(session: AsyncSession, account: Credentials | User) -> User | None:
    """Return the account, locked, if it is still as it was verified."""
    statement = select(User).where(
        User.id == account.id, User.password_hash == account.password_hash, User.is_active
    )
    return await session.scalar(statement.with_for_update())


async def get_for_update(
    session: AsyncSession, *, user_id: int, include_deleted: bool = False
) -> User:
    """Return a user, locked, with their roles and permissions; raise NotFound otherwise."""
    statement = select(User).where(User.id == user_id).options(_WITH_PERMISSIONS)
    if include_deleted:
        statement = statement.where(User.deleted_at.is_(None) | User.can_be_restored())
        statement = statement.execution_options(**{INCLUDE_DELETED: True})
    return await one_or_404(session, statement.with_for_update(of=User))


async def update(session: AsyncSession, *, user: User, data: ProfileUpdate | UserUpdate) -> User:
    """Apply the body. Disabling ends every session and withdraws every mailed link; raise
    LastAdmin for the last admin."""
    changes: dict[str, Any] = data.model_dump()
    if user.is_active and changes.get("is_active") is False:
        await admins.ensure_not_last_admin(session, without=user.id)
        await _revoke_access(session, user)
    changed = changed_fields(changes, user)
    for name, value in changes.items():
        setattr(user, name, value)
    _record_update(session, user, changed)
    await session.flush()
    return user


def _record_update(session: AsyncSession, user: User, changed: list[str]) -> None:
    if "is_active" in changed:
        act = AuditAct.user_enabled if user.is_active else AuditAct.user_disabled
        audit_events.record(session, act, user)
    fields = [name for name in changed if name != "is_active"]
    if fields:
        audit_events.record(session, AuditAct.user_updated, user, fields=fields)


async def soft_delete(session: AsyncSession, *, user: User) -> None:
    """Put a user and what they wrote in the trash and end their sessions; raise LastAdmin."""
    await admins.ensure_not_last_admin(session, without=user.id)
    user.soft_delete()
    await flush_and_expunge(session, user)
    await trash.delete_children(session, user)
    await _revoke_access(session, user)
    await tags.adjust_counts_of_author(session, user_id=user.id, delta=-1)
    audit_events.record(session, AuditAct.user_deleted, user)


async def _revoke_access(session: AsyncSession, user: User) -> None:
    """End the user's sessions, withdraw their links and delete their stored responses."""
    await sessions.end_all(session, user_id=user.id)
    await one_time_tokens.withdraw(session, user=user, purposes=[*Purpose])
    await idempotency_keys.delete_of_user(session, user_id=user.id)


async def restore(session: AsyncSession, *, user: User) -> User:
    """Take a user out of the trash, with what went in with them.

    Raise EmailTaken when another account has the address by now. A live user stays as they are.
    """
    if user.deleted_at is not None:
        user.restore()
        await flush_or_conflict(session, _EMAIL_CONFLICT)
        # Before the posts: once they are live, nothing tells them from the others.
        await tags.adjust_counts_of_author(session, user_id=user.id, delta=1)
        await trash.restore_children(session, user)
        audit_events.record(session, AuditAct.user_restored, user)
    return user
