"""Account recovery by links in mails: reset a password, confirm an address."""

from __future__ import annotations

import asyncio
import time

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.exceptions import EmailTaken
from app.core.keyring import SecretKeys
from app.core.passwords import Policy
from app.core.security import Passwords
from app.crud import audit_events, one_time_tokens, outbox, sessions, users
from app.db.engine import Database
from app.db.rows import flush_or_conflict
from app.models.audit_events import AuditAct
from app.models.base import utc_now
from app.models.one_time_tokens import Purpose
from app.models.outbox import MailKind
from app.models.users import User, email_key
from app.rate_limits.limiter import RateLimitAttempt

# Many times what the work takes, so that a busy machine also finishes in time, the mail included.
BEAT_SECONDS = 0.25
_MAILS = {
    Purpose.reset_password: MailKind.password_reset,
    Purpose.invitation: MailKind.invitation,
}
_SETS_A_PASSWORD = tuple(_MAILS)
_CONFIRMS_AN_ADDRESS = (Purpose.verify_email, Purpose.change_email)
# What an earlier holder of the account, or of its mailbox, may have requested.
_ENDS_WITH_PASSWORD = (*_SETS_A_PASSWORD, Purpose.change_email)


async def forget_password(
    database: Database, *, keys: SecretKeys, attempt: RateLimitAttempt, email: str
) -> None:
    """Mail a link that sets a new password, if there is such an account, it is active, and it
    was not mailed too often of late.

    Do not disclose which: write in a transaction in either case, and return on a fixed beat,
    however long that took. The transaction is committed when this returns.
    """
    started = time.monotonic()
    async with database.begin() as session:
        # By the id, as all transactions lock users: locks through another index could deadlock.
        known = select(User.id).where(User.live_email == email_key(email)).scalar_subquery()
        statement = select(User).where(User.id == known, User.is_active).with_for_update()
        user = await session.scalar(statement)
        audit_events.record(session, AuditAct.password_forgotten, user)
        # Requests of others, or for unknown addresses, do not use up the mails that a confirmed
        # address may get.
        by_itself = user is None or user.email_verified
        may_mail = await attempt.may_mail(email_key(email), by_itself=by_itself)
        if user is not None and may_mail:
            values = await one_time_tokens.issue(
                session, keys=keys, user=user, purpose=Purpose.reset_password
            )
            outbox.enqueue(session, MailKind.password_reset, user, **values)
    await asyncio.sleep((started - time.monotonic()) % BEAT_SECONDS)


async def reset_password(
    database: Database,
    session: AsyncSession,
    *,
    passwords: Passwords,
    policy: Policy,
    attempt: RateLimitAttempt,
    token: str,
    password: str,
) -> None:
    """Set a password by the link of a mail, and end every session.

    Raise InvalidOneTimeToken, and Invalid for a weak password: the link stays valid for another
    try. `session` holds no transaction while the password is hashed.
    """
    async with database.begin(readonly=True) as looking:
        owner = await one_time_tokens.owner(looking, token=token, purposes=_SETS_A_PASSWORD)
    users.refuse_weak(password, policy, email=owner.email, name=owner.name)
    # For the network alone: twenty uses of one link end with one password and 19 times 400.
    async with passwords.turn():
        password_hash = await passwords.hash(password)
    _, user = await one_time_tokens.use(session, token=token, purposes=_SETS_A_PASSWORD)
    audit_events.record(session, AuditAct.password_reset, user, actor_id=user.id)
    # The link proves that they read the mails to their address.
    user.email_verified_at = user.email_verified_at or utc_now()
    await set_password(session, user=user, password_hash=password_hash)
    await sessions.end_all(session, user_id=user.id)
    await attempt.trust(user.id)


async def set_password(session: AsyncSession, *, user: User, password_hash: str) -> None:
    """Store a new password, notify its owner and withdraw the outstanding links."""
    user.password_hash = password_hash
    await one_time_tokens.withdraw(session, user=user, purposes=_ENDS_WITH_PASSWORD)
    outbox.enqueue(session, MailKind.password_changed, user)
    await session.flush()


async def replace_password_links(session: AsyncSession, *, keys: SecretKeys, user: User) -> None:
    """Withdraw the links that set the password of a (locked) user, who gains permissions, and
    mail new ones.

    Those who could read the old ones may not read the new ones: the outbox shows links only to
    those who may manage the recipient.
    """
    for purpose in await one_time_tokens.outstanding(session, user=user, purposes=_SETS_A_PASSWORD):
        values = await one_time_tokens.issue(session, keys=keys, user=user, purpose=purpose)
        outbox.enqueue(session, _MAILS[purpose], user, **values)
    await session.flush()


async def withdraw_password_links_of_role(session: AsyncSession, *, role_id: int) -> None:
    """Withdraw the links that set a password of all who have a role that grants more from now.

    There may be very many: they are mailed no new ones, and may ask for them (`forget_password`).
    """
    await one_time_tokens.withdraw_of_role(session, role_id=role_id, purposes=_SETS_A_PASSWORD)


async def verify_email(session: AsyncSession, *, token: str) -> None:
    """Confirm an address by the link that was mailed to it: the present one, or a new one, which
    takes effect with it and ends every session. Raises InvalidOneTimeToken, EmailTaken."""
    found, user = await one_time_tokens.use(session, token=token, purposes=_CONFIRMS_AN_ADDRESS)
    if found.purpose == Purpose.change_email:
        await _change_email(session, user, found.email)
    else:
        audit_events.record(session, AuditAct.email_verified, user, actor_id=user.id)
        user.email_verified_at = user.email_verified_at or utc_now()
        await session.flush()


async def _change_email(session: AsyncSession, user: User, email: str) -> None:
    outbox.enqueue(session, MailKind.email_changed, user, recipient=user.email, new_email=email)
    audit_events.record(session, AuditAct.email_changed, user, actor_id=user.id)
    user.email, user.email_key, user.email_verified_at = email, email_key(email), utc_now()
    await flush_or_conflict(session, {"uq_users_live_email": EmailTaken})
    await one_time_tokens.withdraw(session, user=user, purposes=[*Purpose])
    await sessions.end_all(session, user_id=user.id)


async def resend_verification(
    session: AsyncSession, *, keys: SecretKeys, attempt: RateLimitAttempt, user: User
) -> None:
    """Mail a new link to confirm the address of a (locked) user, unless it is confirmed or was
    mailed too often of late."""
    if user.email_verified or not await attempt.may_mail(user.email_key):
        return
    values = await one_time_tokens.issue(
        session, keys=keys, user=user, purpose=Purpose.verify_email
    )
    outbox.enqueue(session, MailKind.verify_email, user, **values)
    await session.flush()
