"""The outbox: mails are written with what causes them, then claimed, sent and marked as sent.

A claim is a conditional UPDATE: of any number of processes one wins. It also sets the time of the
next attempt, so the mail of a process that dies in the middle becomes due again by itself. What is
due goes by the database's clock: a process whose own is ahead would take mails being sent for due.
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
from app.db.projections import Projection
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
    """Return the ids of mails to try now, the longest waiting first."""
    statement = (
        select(Mail.id)
        .where(Mail.state.in_(_OPEN), Mail.next_attempt_at <= DatabaseNow())
        .order_by(Mail.next_attempt_at, Mail.id)
        .limit(limit)
    )
    return (await session.scalars(statement)).all()


async def claim(session: AsyncSession, *, mail_id: int) -> Mail | None:
    """Claim a due mail for one attempt; return None when another process was faster.

    Give up a mail here whose every attempt ended its process.
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
    """Mark a mail as sent that the server has taken."""
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
    """Return the mail, locked, unless its lease ran out and another process has claimed it."""
    statement = select(Mail).where(
        Mail.id == claimed.id,
        Mail.state == MailState.sending,
        # Another claim has another lease; the number of attempts may well be the same.
        Mail.next_attempt_at == claimed.next_attempt_at,
    )
    return await session.scalar(statement.with_for_update())


async def retry(session: AsyncSession, *, mail_id: int) -> Mail:
    """Make a mail due at once, with all its attempts; leave one that is being sent as it is.

    Raise NotFound, MailAlreadySent.
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
    """Return a page of the mails that match the filters, with their recipients' permissions."""
    parameters = filters_of(query)
    page = await paginator.paginate(_listing(tuple(parameters)), query, parameters)
    return page.of(_listed_mail)


@cache
def _listing(filters: tuple[str, ...]) -> PaginatedQuery:
    return PaginatedQuery(
        name="outbox",
        filtered_ids=select(Mail.id).where(*(_FILTERS[name] for name in filters)),
        id=Mail.id,
        sort_columns={"created_at": Mail.created_at},
        projection=Projection(
            (*_COLUMNS, "recipient_permissions"),
            Mail,
            recipient_permissions=_recipient_permissions(),
        ),
    )


def _listed_mail(item: dict[str, Any]) -> ListedMail:
    # The sum is NULL for a recipient without roles, and a Decimal on MariaDB.
    bits = int(item.pop("recipient_permissions") or 0)
    mail = Mail(**item)
    held = None if mail.user_id is None else _permissions(bits)
    return ListedMail(mail, held)


def _permissions(bits: int) -> frozenset[Permission]:
    role = ADMIN_ROLE if bits & _bits()[ADMIN_ROLE] else ""
    return frozenset(effective(role, {name for name in Permission if bits & _bits()[name]}))
