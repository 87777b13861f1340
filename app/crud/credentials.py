"""What somebody who is logged in must know the present password for: a new one, a new address,
the end of the account."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm.exc import StaleDataError

from app.core.exceptions import WrongCurrentPassword
from app.core.keys import SecretKeys
from app.core.passwords import Policy
from app.core.permissions import Caller
from app.core.security import Passwords
from app.crud import audit, one_time, outbox, sessions, users
from app.crud.recovery import set_password
from app.database import Database
from app.models.audit import AuditAct
from app.models.one_time_tokens import Purpose
from app.models.outbox import MailKind
from app.models.users import User, email_key
from app.quotas import Whom
from app.throttling import Attempt


@dataclass(frozen=True)
class Confirmation:
    """Somebody who is logged in, at the door where they have to know the present password."""

    database: Database
    passwords: Passwords
    attempt: Attempt
    caller: Caller

    async def account(
        self, password: str, judge: Callable[[User | None], None] = lambda _: None
    ) -> User:
        """Theirs, if it is their password; else WrongCurrentPassword, or TooManyRequests. No
        transaction is open while the password is hashed.

        `judge` may refuse what is wanted of the account, before anything is counted or hashed.
        """
        caller = self.caller
        async with self.database.begin(readonly=True) as session:
            account = await session.scalar(select(User).where(User.id == caller.user_id))
        judge(account)
        stored = account.password_hash if account else None
        key = account.email_key if account else ""
        await self.attempt.on_account(key, session_id=caller.session_id, user_id=caller.user_id)
        matches, _ = await self.passwords.verify(password, stored)
        if account is None or not matches:
            raise WrongCurrentPassword
        return account


async def change_password(
    session: AsyncSession,
    confirmation: Confirmation,
    *,
    policy: Policy,
    current_password: str,
    new_password: str,
) -> None:
    """Replace the caller's password, and end their other sessions.

    Raises WrongCurrentPassword, and Invalid for a weak password. `session` holds no transaction
    while passwords are hashed.
    """

    def judge(account: User | None) -> None:
        email, name = (account.email, account.name) if account else ("", "")
        users.refuse_weak(new_password, policy, email=email, name=name, field="new_password")

    account, caller = await confirmation.account(current_password, judge), confirmation.caller
    password_hash = await confirmation.passwords.hash(new_password)
    await confirmation.attempt.spend(Whom.changes, caller.user_id)
    user = await _lock_confirmed(session, account)
    audit.record(session, AuditAct.password_changed, user)
    await set_password(session, user=user, password_hash=password_hash)
    await sessions.end_all(session, user_id=user.id, but=caller.session_id)


async def request_email_change(
    session: AsyncSession,
    confirmation: Confirmation,
    *,
    keys: SecretKeys,
    current_password: str,
    new_email: str,
) -> None:
    """Mail a link to a new address, and a notice to the present one; see `recovery.verify_email`.

    Raises WrongCurrentPassword. An address that somebody has gets no mail; that it is so is not
    told. `session` holds no transaction while the password is hashed.
    """
    account, attempt = await confirmation.account(current_password), confirmation.attempt
    await attempt.spend(Whom.changes, account.id)
    user = await _lock_confirmed(session, account)
    audit.record(session, AuditAct.email_change_requested, user)
    outbox.enqueue(session, MailKind.email_change_notice, user, new_email=new_email)
    values = await one_time.issue(
        session, keys=keys, user=user, purpose=Purpose.change_email, email=new_email
    )
    holder = await session.scalar(select(User.id).where(User.live_email == email_key(new_email)))
    # Nor may anybody have strangers mailed over and over.
    if holder in {None, user.id} and await attempt.may_mail(email_key(new_email)):
        outbox.enqueue(session, MailKind.email_change, user, recipient=new_email, **values)
    await session.flush()


async def confirm(
    session: AsyncSession, confirmation: Confirmation, *, current_password: str
) -> User:
    """The caller's account, locked, if it is their password. Raises WrongCurrentPassword.
    `session` holds no transaction while the password is hashed."""
    return await _lock_confirmed(session, await confirmation.account(current_password))


async def _lock_confirmed(session: AsyncSession, account: User) -> User:
    """The account, locked. When its password is another by now than the one that was confirmed,
    the whole request runs again (`core/recovery.py`), and meets what stands there."""
    user = await users.lock_unchanged(session, account)
    if user is None:
        raise StaleDataError
    return user
