"""Headers and bodies of mails, whatever the name and the address."""

from __future__ import annotations

import email
import email.policy
import re
from email.message import EmailMessage

import pytest

from app.config import Settings
from app.db.engine import Database
from app.models.outbox import Mail, MailState
from app.tasks.dispatcher import Dispatcher
from app.tasks.mail import FolderMailer, compose, describe
from tests.support.client import Client
from tests.support.mails import ADDRESSES, SENT_TO, addressed_to, mail_to, queue, stored

HOSTILE = "Eve\r\nBcc victim\r\n\r\n<script>alert(1)<script>"


async def in_mailbox(database: Database, settings: Settings, mail: Mail) -> EmailMessage:
    """Deliver a mail to the development mailbox and read it back from its file."""
    await Dispatcher(database, FolderMailer(settings.mail_dir), settings).deliver(mail.id)
    content = (settings.mail_dir / f"{mail.key}.eml").read_bytes()
    return email.message_from_bytes(content, policy=email.policy.default)


async def test_the_development_mailbox_holds_a_file_mail_programs_can_read(
    client: Client, database: Database, settings: Settings
) -> None:
    account = await client.register("José Ñandú 🎈")
    mail = await mail_to(database, account["email"])
    message = await in_mailbox(database, settings, mail)
    assert message["Subject"] == "Welcome, José Ñandú 🎈"
    assert message["To"].addresses[0].addr_spec == account["email"]
    assert message["From"] == "Cimiento <no-reply@example.com>"
    assert message["Message-ID"] == describe(mail, settings).message_id
    assert message["Date"].datetime == mail.created_at.replace(microsecond=0)
    for kind in ("plain", "html"):
        body = message.get_body((kind,))
        assert body is not None
        assert "Hello José Ñandú 🎈," in body.get_content()
    assert (await stored(database, mail.id)).state == MailState.sent


async def test_a_hostile_name_adds_no_header_and_no_markup(
    database: Database, settings: Settings
) -> None:
    """A5: one To, whatever the name says, which may be older than the rules for names; and the
    mail is sent all the same."""
    [mail_id] = await queue(database, "eve@example.com", name=HOSTILE)
    mail = await stored(database, mail_id)
    message = await in_mailbox(database, settings, mail)
    assert "Bcc" not in message
    assert addressed_to(message) == ["eve@example.com"]
    assert message["Subject"].startswith("Welcome, Eve Bcc victim")
    html = message.get_body(("html",))
    assert html is not None
    assert "<script" not in html.get_content()
    assert "&lt;script&gt;" in html.get_content()
    shown = describe(mail, settings)
    assert shown.html is not None
    assert "<script" not in shown.html


@pytest.mark.parametrize(
    "name", ["{public_url}", "{0.__class__}", "{{ 7 * 7 }}", "100 % {", "A\u2028B"]
)
async def test_a_name_is_text_to_the_templates(
    database: Database, settings: Settings, name: str
) -> None:
    [mail_id] = await queue(database, "ana@example.com", name=name)
    message = await in_mailbox(database, settings, await stored(database, mail_id))
    assert message["Subject"] == f"Welcome, {' '.join(name.split())}"
    plain = message.get_body(("plain",))
    assert plain is not None
    assert " ".join(f"Hello {name},".split()) in " ".join(plain.get_content().split())


@pytest.mark.parametrize(
    "name", ["Win http://evil.example", "see www.evil", "evil.example", "a@b", "Eve\r\nBcc: x"]
)
async def test_who_is_named_like_a_link_is_not_called_by_that_name(
    database: Database, settings: Settings, name: str
) -> None:
    """A49: else anybody could have strangers mailed what they like. The subject has their address
    instead, the text nothing: mail programs make links of addresses too."""
    recipient = "ana@example.com"
    [mail_id] = await queue(database, recipient, name=name)
    message = await in_mailbox(database, settings, await stored(database, mail_id))
    assert message["Subject"] == f"Welcome, {recipient}"
    assert "evil" not in message.as_string()
    for kind in ("plain", "html"):
        body = message.get_body((kind,))
        assert body is not None
        assert re.search(r"^(<p>)?Hello,(</p>)?\r?$", body.get_content(), re.MULTILINE)
        assert "@" not in body.get_content()


@pytest.mark.parametrize("recipient", ADDRESSES)
async def test_a_mail_goes_to_exactly_one_address(
    database: Database, settings: Settings, recipient: str
) -> None:
    """A5: one To, even for a quoted local part that looks like a list."""
    [mail_id] = await queue(database, recipient)
    mail = await stored(database, mail_id)
    assert len(compose(mail, settings).get_all("To", [])) == 1
    message = await in_mailbox(database, settings, mail)
    assert addressed_to(message) == [SENT_TO.get(recipient, recipient)]
    assert message["Cc"] is None


@pytest.mark.parametrize(
    "recipient", ["a@example.com, victim@example.com", "a@example.com\r\nBcc: victim@example.com"]
)
async def test_what_is_no_single_address_is_not_sent_at_all(
    database: Database, settings: Settings, recipient: str
) -> None:
    [mail_id] = await queue(database, recipient)
    await Dispatcher(database, FolderMailer(settings.mail_dir), settings).deliver(mail_id)
    mail = await stored(database, mail_id)
    assert (mail.state, mail.attempts) == (MailState.pending, 1)
    assert not (settings.mail_dir / f"{mail.key}.eml").exists()
