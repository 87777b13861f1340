"""The outbox: mails are written with what causes them, then claimed, sent and ticked off.

A claim is a guarded UPDATE: of any number of processes one wins. It also sets the time of the
next attempt, so the mail of a process that dies in the middle comes up again by itself. What is due
goes by the database's clock: to a process whose own is ahead, a mail that is just being sent would
be.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from functools import cache
from typing import Any, cast

from sqlalchemy import (
    CursorResult,
    ScalarSelect,
    bindparam,
    case,
    distinct,
    func,
    inspect,
    select,
    update,
)
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.exceptions import MailAlreadySent
from app.core.permissions import ADMIN_ROLE, Permission
from app.db.paginated_queries import PaginatedQuery, filters_of
from app.db.pagination import PageResult, Paginator
from app.db.rows import database_now, one_or_404
from app.models.base import DatabaseNow, utc_now
from app.models.outbox import MAX_ERROR, Mail, MailKind, MailState
from app.models.roles import Role, RolePermission, effective
from app.models.users import User, UserRole
from app.schemas.outbox import MailQuery

MAX_ATTEMPTS = 8
# Longer than one delivery may take: else a slow one would be sent twice.
LEASE = timedelta(seconds=60)
# However long the trouble lasted, what can be delivered is tried again within a minute of its end.
_FIRST_WAIT_SECONDS, _LONGEST_WAIT_SECONDS = 10, 50
_OUTAGE_WAIT = timedelta(seconds=10)
_DEFERRAL_WAIT = timedelta(seconds=30)
# RFC 5321 §4.5.4.1 has senders try for some days: links in mails work no longer than that.
_DEFERRALS_FOR = timedelta(days=2)
# `sending` too: when its lease is over, the process that had it is gone.
_OPEN = (MailState.pending, MailState.sending)
# A one-time token (64 hexadecimal digits) or the greater part of one, as servers quote links.
_LIKE_A_TOKEN = re.compile(r"[0-9a-f]{24,}", re.IGNORECASE)


def enqueue(
    session: AsyncSession,
    kind: MailKind,
    user: User,
    *,
    recipient: str | None = None,
    **values: str,
) -> None:
    """Write a mail to a (flushed) user, to be sent once this transaction has committed.

    `recipient` is for another address than their present one; `values` fill the texts' places.
    """
    session.add(
        Mail(
            kind=kind,
            user_id=user.id,
            recipient=recipient or user.email,
            locale=user.locale,
            values={"name": user.name, **values},
        )
    )


async def due(session: AsyncSession, *, limit: int) -> Sequence[int]:
    """Ids of mails to try now, the longest waiting first."""
    statement = (
        select(Mail.id)
        .where(Mail.state.in_(_OPEN), Mail.next_attempt_at <= DatabaseNow())
        .order_by(Mail.next_attempt_at, Mail.id)
        .limit(limit)
    )
    return (await session.scalars(statement)).all()


async def claim(session: AsyncSession, *, mail_id: int) -> Mail | None:
    """Take a due mail for one attempt; None when another process was faster.

    A mail that has ended every process that tried it is given up here.
    """
    now = await database_now(session)
    claimed = await session.execute(
        update(Mail)
        .where(Mail.id == mail_id, Mail.state.in_(_OPEN), Mail.next_attempt_at <= now)
        .values(state=MailState.sending, attempts=Mail.attempts + 1, next_attempt_at=now + LEASE)
    )
    if not cast("CursorResult[Any]", claimed).rowcount:
        return None
    mail = await session.get_one(Mail, mail_id)
    if mail.attempts <= MAX_ATTEMPTS:
        return mail
    mail.state, mail.attempts = MailState.dead, MAX_ATTEMPTS
    return None


async def mark_sent(session: AsyncSession, *, claimed: Mail) -> None:
    """Tick off a mail the server has taken."""
    mail = await _still_claimed(session, claimed)
    if mail is not None:
        mail.state, mail.sent_at, mail.last_error = MailState.sent, utc_now(), None


class Failure(StrEnum):
    """How an attempt failed."""

    # The server is out of reach: the mail is not to blame.
    unreachable = "unreachable"
    # It will take the mail later, or so it says (4xx).
    deferred = "deferred"
    # It does not want it (5xx), or has not said whether it took it.
    refused = "refused"


async def mark_failed(
    session: AsyncSession, *, claimed: Mail, reason: str, failure: Failure
) -> MailState:
    """Put a mail back for another attempt, or give it up after MAX_ATTEMPTS.

    Attempts count when the mail was refused, or is too old to be deferred once more.
    """
    mail = await _still_claimed(session, claimed)
    if mail is None:
        return claimed.state
    now = await database_now(session)
    mail.state, mail.last_error = MailState.pending, _storable(reason)[:MAX_ERROR]
    if failure is Failure.unreachable:
        mail.attempts, mail.next_attempt_at = mail.attempts - 1, now + _OUTAGE_WAIT
    elif failure is Failure.deferred and now - mail.created_at < _DEFERRALS_FOR:
        mail.attempts, mail.next_attempt_at = mail.attempts - 1, now + _DEFERRAL_WAIT
    elif mail.attempts >= MAX_ATTEMPTS:
        mail.state = MailState.dead
    else:
        wait = min(_FIRST_WAIT_SECONDS * 2 ** (mail.attempts - 1), _LONGEST_WAIT_SECONDS)
        mail.next_attempt_at = now + timedelta(seconds=wait)
    return mail.state


def _storable(text: str) -> str:
    """Return an answer of any server, without what some databases refuse (lone surrogates, NUL)
    and without tokens: spam filters quote the links that they object to."""
    shown = without_tokens(text.encode("utf-8", "replace").decode())
    return "".join(each if each.isprintable() else " " for each in shown)


def without_tokens(text: str) -> str:
    """Return a text with everything cut out that may be a one-time token."""
    return _LIKE_A_TOKEN.sub("…", text)


async def _still_claimed(session: AsyncSession, claimed: Mail) -> Mail | None:
    """The mail, locked, unless its lease ran out and somebody else has taken it since."""
    statement = select(Mail).where(
        Mail.id == claimed.id,
        Mail.state == MailState.sending,
        # Another claim has another lease; the number of attempts may well be the same.
        Mail.next_attempt_at == claimed.next_attempt_at,
    )
    return await session.scalar(statement.with_for_update())


async def retry(session: AsyncSession, *, mail_id: int) -> Mail:
    """Make a mail due at once, with all its attempts; one that is just being sent is left to it.

    Raises NotFound, MailAlreadySent.
    """
    mail = await one_or_404(session, select(Mail).where(Mail.id == mail_id).with_for_update())
    if mail.state == MailState.sent:
        raise MailAlreadySent
    if mail.state != MailState.sending:
        now = await database_now(session)
        mail.state, mail.attempts, mail.next_attempt_at = MailState.pending, 0, now
        await session.flush()
    return mail


@dataclass(frozen=True, slots=True)
class ListedMail:
    """A mail, and what its recipient may do now; None when the recipient's account is gone."""

    mail: Mail
    recipient_permissions: frozenset[Permission] | None


_COLUMNS = [column.key for column in inspect(Mail).column_attrs]
_FILTERS = {"state": Mail.state == bindparam("state"), "kind": Mail.kind == bindparam("kind")}


# A recipient's permissions as the sum of these: a number, as a text of names has a greatest
# length on MariaDB, behind which an administrator would look like a lesser user.
@cache
def _bits() -> dict[str, int]:
    return {name: 1 << place for place, name in enumerate([ADMIN_ROLE, *Permission])}


def _recipient_permissions() -> ScalarSelect[int]:
    bits = _bits()
    granted = case(
        (Role.name == ADMIN_ROLE, bits[ADMIN_ROLE]),
        *((RolePermission.permission == name, bits[name]) for name in Permission),
        else_=0,
    )
    return (
        select(func.sum(distinct(granted)))
        .select_from(UserRole)
        .join(Role, Role.id == UserRole.role_id)
        .outerjoin(RolePermission, RolePermission.role_id == Role.id)
        .where(UserRole.user_id == Mail.user_id)
        .correlate(Mail)
        .scalar_subquery()
    )


async def list_mails(paginator: Paginator, *, query: MailQuery) -> PageResult[ListedMail]:
    """Mails that match the filters, with the permissions of their recipients at this moment."""
    given = filters_of(query)
    return await paginator.paginate(_listing(tuple(given)), query, given)


@cache
def _listing(filters: tuple[str, ...]) -> PaginatedQuery[ListedMail]:
    shown = [getattr(Mail, name) for name in _COLUMNS]
    return PaginatedQuery(
        name="outbox",
        matching=select(Mail.id).where(*(_FILTERS[name] for name in filters)),
        id=Mail.id,
        keys={"created_at": Mail.created_at},
        rows=lambda page: select(*shown, _recipient_permissions()).join(page, page.c.id == Mail.id),
        item=_as_listed,
    )


def _as_listed(row: tuple[Any, ...]) -> ListedMail:
    mail = Mail(**dict(zip(_COLUMNS, row, strict=False)))
    # The sum is NULL for a recipient without roles, and a Decimal on MariaDB.
    bits = int(row[len(_COLUMNS)] or 0)
    held = None if mail.user_id is None else _permissions(bits)
    return ListedMail(mail, held)


def _permissions(bits: int) -> frozenset[Permission]:
    role = ADMIN_ROLE if bits & _bits()[ADMIN_ROLE] else ""
    return frozenset(effective(role, {name for name in Permission if bits & _bits()[name]}))
