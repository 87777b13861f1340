"""Mails in the outbox, put there and looked at behind the API."""

from __future__ import annotations

from datetime import datetime, timedelta
from email.message import EmailMessage

from sqlalchemy import func, select, update

from app.db.engine import Database
from app.models.base import utc_now
from app.models.outbox import Mail, MailKind, MailState

# Addresses that are awkward to write into a header.
ADDRESSES = (
    '"a@example.com, victim"@example.org',
    '"a,b"@example.com',
    "josé@example.com",
    "ana@exämple.com",
    "o'hara+tag@example.com",
)
# Those that go out in another form.
SENT_TO = {"ana@exämple.com": "ana@xn--exmple-cua.com"}


def addressed_to(message: EmailMessage) -> list[str]:
    """The addresses of `To`. Python's parser leaves raw UTF-8 in a header undecoded."""
    found = [address.addr_spec for address in message["To"].addresses]
    return [text.encode("ascii", "surrogateescape").decode() for text in found]


async def put(database: Database, state: MailState, *, due: float) -> None:
    """A mail in some state, due in so many seconds (negative: overdue)."""
    async with database.begin() as session:
        session.add(
            Mail(
                kind=MailKind.welcome,
                recipient="ana@example.com",
                locale="en",
                state=state,
                next_attempt_at=utc_now() + timedelta(seconds=due),
            )
        )


async def queue(database: Database, *recipients: str, name: str = "Ana") -> list[int]:
    """Welcome mails that are due now; their ids."""
    mails = [
        Mail(kind=MailKind.welcome, recipient=recipient, locale="en", values={"name": name})
        for recipient in recipients
    ]
    async with database.begin() as session:
        session.add_all(mails)
        await session.flush()
    return [mail.id for mail in mails]


async def stored(database: Database, mail_id: int) -> Mail:
    """A mail as it stands now."""
    async with database.begin(readonly=True) as session:
        return await session.get_one(Mail, mail_id)


async def mail_to(database: Database, recipient: str) -> Mail:
    """Return the only mail to a recipient."""
    async with database.begin(readonly=True) as session:
        return (await session.scalars(select(Mail).where(Mail.recipient == recipient))).one()


async def count(database: Database, state: MailState | None = None) -> int:
    """How many mails there are, in some state or in all."""
    statement = select(func.count()).select_from(Mail)
    if state is not None:
        statement = statement.where(Mail.state == state)
    async with database.begin(readonly=True) as session:
        return int(await session.scalar(statement) or 0)


async def make_due(database: Database, mail_id: int, when: datetime | None = None) -> None:
    """Turn the clock forward for one mail."""
    async with database.begin() as session:
        await session.execute(
            update(Mail).where(Mail.id == mail_id).values(next_attempt_at=when or utc_now())
        )
