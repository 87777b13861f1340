"""Changes that a logged-in user confirms with the current password: a new password, a new address,
the deletion of the account."""

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
class PasswordConfirmation:
    """Verify the current password of a logged-in caller."""

    database: Database
    passwords: Passwords
    attempt: RateLimitAttempt
    caller: Caller

    def turn(self) -> AbstractAsyncContextManager[None]:
        """Wait for a turn to hash passwords within; raise Overloaded when there is none."""
        return self.passwords.turn(f"user {self.caller.user_id}")

    async def account(self, password: str, judge: Callable[[User], None] = lambda _: None) -> User:
        """Return the caller's account if the password is right; else raise WrongCurrentPassword.

        Raise TooManyRequests after too many attempts, InvalidToken for a deleted account. No
        transaction is open while the password is hashed. `judge` may raise to refuse the
        change before an attempt is counted or a password hashed.
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
    confirmation: PasswordConfirmation,
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
    await confirmation.attempt.count(LimitScope.changes, caller.user_id)
    await authorization.authorize_write(session, caller)
    user = await _lock_confirmed(session, account)
    audit_events.record(session, AuditAct.password_changed, user)
    await set_password(session, user=user, password_hash=password_hash)
    await sessions.end_all(session, user_id=user.id, but=caller.session_id)


async def request_email_change(
    session: AsyncSession,
    confirmation: PasswordConfirmation,
    *,
    keys: SecretKeys,
    current_password: str,
    new_email: str,
) -> None:
    """Mail a link to a new address, and a notice to the present one; see
    `account_recovery.verify_email`.

    Raise WrongCurrentPassword. An address of another account gets no mail, and the response does
    not disclose it. `session` holds no transaction while the password is hashed.
    """
    account, attempt = await confirmation.account(current_password), confirmation.attempt
    await attempt.count(LimitScope.changes, account.id)
    await authorization.authorize_write(session, confirmation.caller)
    user = await _lock_confirmed(session, account)
    audit_events.record(session, AuditAct.email_change_requested, user)
    outbox.enqueue(session, MailKind.email_change_notice, user, new_email=new_email)
    values = await one_time_tokens.issue(
        session, keys=keys, user=user, purpose=Purpose.change_email, email=new_email
    )
    holder = await session.scalar(select(User.id).where(User.live_email == email_key(new_email)))
    # Limited, so that no user can have a third party mailed repeatedly.
    if holder in {None, user.id} and await attempt.may_mail(email_key(new_email)):
        outbox.enqueue(session, MailKind.email_change, user, recipient=new_email, **values)
    await session.flush()


async def begin_deletion(
    session: AsyncSession, confirmation: PasswordConfirmation, *, current_password: str
) -> tuple[User, Caller]:
    """Return the caller's account, locked, and the caller; raise WrongCurrentPassword.
    `session` holds no transaction while the password is hashed.

    The lock of rights is taken for administrators alone: there may be very many posts to delete.
    """
    account = await confirmation.account(current_password)
    async with confirmation.database.begin(readonly=True) as looking:
        was_admin = await admins.is_admin(looking, user_id=account.id)
    caller = await authorization.authorize_write(
        session, confirmation.caller, may_end_admin=was_admin
    )
    user = await _lock_confirmed(session, account)
    if not was_admin and await admins.is_admin(session, user_id=user.id):
        # Became one in between: run the request again, which takes the lock of rights first.
        raise StaleDataError
    return user, caller


async def _lock_confirmed(session: AsyncSession, account: User) -> User:
    """Return the account, locked, if its password is still the one that was confirmed.

    Otherwise raise StaleDataError: `web/middleware/retry.py` runs the whole request again.
    """
    user = await users.lock_unchanged(session, account)
    if user is None:
        raise StaleDataError
    return user
