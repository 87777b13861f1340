"""What somebody who is logged in must know the present password for: a new one, a new address,
the end of the account."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm.exc import StaleDataError

from app.core.exceptions import InvalidToken, WrongCurrentPassword
from app.core.keyring import SecretKeys
from app.core.passwords import Policy
from app.core.permissions import Caller
from app.core.security import Passwords
from app.crud import admins, audit_events, authorization, one_time_tokens, outbox, sessions, users
from app.crud.account_recovery import set_password
from app.db.engine import Database
from app.models.audit_events import AuditAct
from app.models.one_time_tokens import Purpose
from app.models.outbox import MailKind
from app.models.users import User, email_key
from app.rate_limits.limiter import RateLimitAttempt
from app.rate_limits.rules import LimitScope


@dataclass(frozen=True)
class Confirmation:
    """Somebody who is logged in, at the door where they have to know the present password."""

    database: Database
    passwords: Passwords
    attempt: RateLimitAttempt
    caller: Caller

    def turn(self) -> AbstractAsyncContextManager[None]:
        """Wait for a turn for all that is hashed within; raise Overloaded when there is none."""
        return self.passwords.turn(f"user {self.caller.user_id}")

    async def account(self, password: str, judge: Callable[[User], None] = lambda _: None) -> User:
        """Theirs, if it is their password; else WrongCurrentPassword, or TooManyRequests.
        InvalidToken when it has been deleted. No transaction is open while the password is
        hashed.

        `judge` may refuse what is wanted of the account, before anything is counted or hashed.
        """
        async with self.turn():
            return await self._account(password, judge)

    async def _account(self, password: str, judge: Callable[[User], None]) -> User:
        caller = self.caller
        async with self.database.begin(readonly=True) as session:
            account = await session.scalar(select(User).where(User.id == caller.user_id))
        if account is None:
            raise InvalidToken
        judge(account)
        await self.attempt.on_account(
            account.email_key, session_id=caller.session_id, user_id=caller.user_id
        )
        matches, _ = await self.passwords.verify(password, account.password_hash)
        if not matches:
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

    def judge(account: User) -> None:
        users.refuse_weak(
            new_password, policy, email=account.email, name=account.name, field="new_password"
        )

    caller = confirmation.caller
    async with confirmation.turn():
        account = await confirmation.account(current_password, judge)
        password_hash = await confirmation.passwords.hash(new_password)
    await confirmation.attempt.spend(LimitScope.changes, caller.user_id)
    await authorization.begin(session, caller)
    user = await _lock_confirmed(session, account)
    audit_events.record(session, AuditAct.password_changed, user)
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
    await attempt.spend(LimitScope.changes, account.id)
    await authorization.begin(session, confirmation.caller)
    user = await _lock_confirmed(session, account)
    audit_events.record(session, AuditAct.email_change_requested, user)
    outbox.enqueue(session, MailKind.email_change_notice, user, new_email=new_email)
    values = await one_time_tokens.issue(
        session, keys=keys, user=user, purpose=Purpose.change_email, email=new_email
    )
    holder = await session.scalar(select(User.id).where(User.live_email == email_key(new_email)))
    # Nor may anybody have strangers mailed over and over.
    if holder in {None, user.id} and await attempt.may_mail(email_key(new_email)):
        outbox.enqueue(session, MailKind.email_change, user, recipient=new_email, **values)
    await session.flush()


async def begin_deletion(
    session: AsyncSession, confirmation: Confirmation, *, current_password: str
) -> tuple[User, Caller]:
    """Return the caller's account, locked, and the caller; raise WrongCurrentPassword.
    `session` holds no transaction while the password is hashed.

    The lock of rights is taken for administrators alone: there may be very many posts to delete.
    """
    account = await confirmation.account(current_password)
    async with confirmation.database.begin(readonly=True) as looking:
        was_admin = await admins.is_admin(looking, user_id=account.id)
    caller = await authorization.begin(session, confirmation.caller, may_end_admin=was_admin)
    user = await _lock_confirmed(session, account)
    if not was_admin and await admins.is_admin(session, user_id=user.id):
        # Made one in between: the request runs again, and takes the lock before the others.
        raise StaleDataError
    return user, caller


async def _lock_confirmed(session: AsyncSession, account: User) -> User:
    """The account, locked. When its password is another by now than the one that was confirmed,
    the whole request runs again (`web/middleware/retry.py`), and meets what stands there."""
    user = await users.lock_unchanged(session, account)
    if user is None:
        raise StaleDataError
    return user
