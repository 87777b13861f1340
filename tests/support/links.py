"""Links in mails, read as their readers do: from the text of the mail."""

from __future__ import annotations

import re

from sqlalchemy import select

from app.models.outbox import Mail, MailKind
from app.tasks.mail import compose
from tests.support.client import API, Client

LINK = re.compile(r"(\S+)/account/([a-z-]+)#(\S+)")


async def mails_to(client: Client, recipient: str) -> list[Mail]:
    """Return every mail to a recipient, the oldest first."""
    statement = select(Mail).where(Mail.recipient == recipient).order_by(Mail.id)
    async with client.database.begin(readonly=True) as session:
        return list(await session.scalars(statement))


async def kinds_to(client: Client, recipient: str) -> list[MailKind]:
    return [MailKind(mail.kind) for mail in await mails_to(client, recipient)]


def text_of(client: Client, mail: Mail) -> str:
    """A mail as it is sent, its plain text."""
    body = compose(mail, client.app.state.settings).get_body(("plain",))
    assert body is not None
    text: str = body.get_content()
    return text


def link_in(text: str) -> tuple[str, str]:
    """The page and the token of the only link in a text."""
    [(_, page, token)] = LINK.findall(text)
    return page, token


async def token_to(client: Client, recipient: str) -> str:
    """Return the token of the newest mail to a recipient."""
    mail = (await mails_to(client, recipient))[-1]
    return link_in(text_of(client, mail))[1]


async def forgotten(client: Client, *, email: str) -> str:
    """The token of a link for a forgotten password, asked for over HTTP."""
    body = {"email": email}
    # Not by `client`: its token may be no good.
    response = await client.http.post(f"{API}/auth/password/forgot", json=body)
    assert response.status_code == 202
    return await token_to(client, email)
