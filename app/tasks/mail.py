"""Mails: written from the catalogue's texts, handed to an SMTP server or to a folder."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from email.header import Header
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP, SMTPUTF8
from email.utils import format_datetime, parseaddr
from pathlib import Path
from typing import Protocol

import aiosmtplib
import anyio
from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from app.config import Settings, SmtpTls
from app.core import i18n
from app.crud import one_time_tokens
from app.crud.outbox import Failure, without_tokens
from app.models.one_time_tokens import Purpose
from app.models.outbox import Mail, MailState
from app.schemas import outbox as schemas
from app.schemas.emails import deliverable_form
from app.tasks.user_text import UserText

_FAREWELL_SECONDS = 1
_HEADER_WIDTH = 76  # RFC 2047 §2
# Where the link of a mail leads; app/routers/account_pages.py serves these pages.
PAGES = {
    Purpose.verify_email: "verify-email",
    Purpose.change_email: "change-email",
    Purpose.reset_password: "reset-password",
    Purpose.invitation: "invitation",
}
_TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent.parent / "templates" / "mail"),
    autoescape=select_autoescape(),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


class NotSent(Exception):
    """The mail server has not taken a mail, or did not say that it has."""

    def __init__(self, failure: Failure, reason: str) -> None:
        super().__init__(reason)
        self.failure = failure


@dataclass(frozen=True)
class Rendered:
    """A mail's texts in its reader's language."""

    subject: str
    text: str
    html: str


class Mailer(Protocol):
    """Takes a message on its way, or raises NotSent."""

    async def send(self, message: EmailMessage) -> None: ...


def render(mail: Mail, settings: Settings, *, hide_link: bool = False) -> Rendered:
    """Return the subject and both bodies of a mail. Its link, if it has one, is built here,
    or left out."""
    texts = i18n.find(mail.locale, "mail", mail.kind)
    common = i18n.find(mail.locale, "mail", "common")
    link = None if hide_link else _link(mail, settings)
    no_link = common["hidden_link" if hide_link else "no_link"]
    given = UserText.of(mail)
    values = {
        "public_url": settings.public_url,
        "link": link or no_link,
        "name": given.name,
        "new_email": given.new_email,
    }
    heading = texts.get("heading", texts["subject"])
    greeting = common["greeting" if given.name else "greeting_unnamed"]
    page = {
        "locale": mail.locale,
        "heading": heading,
        "greeting": greeting.format(**values),
        "paragraphs": [line.format(**values) for line in texts["paragraphs"]],
        "footer": common["footer"].format(**values),
        "link": link,
    }
    addressee = given.name or given.recipient
    return Rendered(
        subject=texts["subject"].format(name=addressee) if addressee else heading,
        text=_TEMPLATES.get_template("message.txt").render(page),
        html=_TEMPLATES.get_template("message.html").render(page),
    )


def _link(mail: Mail, settings: Settings) -> str | None:
    """Return the link of a mail; None if it has none, or its key is not in use any more.

    The token is its fragment: browsers send that to no server, so no log and no Referer has it.
    """
    token = one_time_tokens.token_of(settings.keys, mail.values)
    if token is None:
        return None
    page = PAGES[Purpose(mail.values["purpose"])]
    return f"{settings.public_url}/account/{page}#{token}"


def message_id(mail: Mail, settings: Settings) -> str:
    """Return the Message-ID: the same on every attempt, to recognise a mail that is sent twice."""
    domain = deliverable_form(parseaddr(settings.mail_from)[1]).rpartition("@")[2]
    return f"<{mail.key}@{domain}>"


def compose(mail: Mail, settings: Settings) -> EmailMessage:
    """Return the message of a mail: text and HTML, to exactly one recipient."""
    rendered = render(mail, settings)
    sender, sender_address = parseaddr(settings.mail_from)
    recipient = deliverable_form(mail.recipient)
    message = EmailMessage(policy=SMTP if recipient.isascii() else SMTPUTF8)
    message["Message-ID"] = message_id(mail, settings)
    message["Date"] = format_datetime(mail.created_at)
    message["From"] = Address(display_name=sender, addr_spec=deliverable_form(sender_address))
    # Built as one address: a list of them in the stored text cannot become two recipients.
    message["To"] = _one_address(recipient)
    _set_subject(message, rendered.subject)
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(rendered.text)
    message.add_alternative(rendered.html, subtype="html")
    return message


def _set_subject(message: EmailMessage, subject: str) -> None:
    if subject.isascii():
        message["Subject"] = subject
        return
    # The folding of EmailMessage loses spaces between encoded words: `evil. com` could become a
    # link by it. Header does not, and what it has encoded is not folded again.
    encoded = Header(subject, "utf-8", _HEADER_WIDTH, "Subject").encode(linesep="\r\n")
    message.set_raw("Subject", encoded)


def _one_address(text: str) -> Address:
    """Return the address of a text that holds one; raise ValueError for anything else."""
    local, _, domain = text.rpartition("@")
    if local.isascii():
        return Address(addr_spec=text)
    # The parser refuses letters like the é of josé@example.com, which RFC 6531 permits.
    return Address(username=local, domain=domain)


def describe(
    mail: Mail,
    settings: Settings,
    *,
    recipient_is_managed: bool = False,
    with_texts: bool = True,
) -> schemas.Mail:
    """Return a mail as the outbox shows it to a reader who may manage its recipient, or not.

    While an SMTP server is configured, the texts are for the recipient alone. Without one, they
    are shown to those who may manage the recipient, and in development to every reader, but the
    link, which opens the account, to the former alone.
    """
    rendered = render(mail, settings, hide_link=not recipient_is_managed)
    may_read = recipient_is_managed or settings.in_development
    shown = with_texts and may_read and settings.smtp_host is None
    return schemas.Mail(
        id=mail.id,
        kind=mail.kind,
        recipient=mail.recipient,
        locale=mail.locale,
        subject=rendered.subject,
        text=rendered.text if shown else None,
        html=rendered.html if shown else None,
        message_id=message_id(mail, settings),
        state=mail.state,
        attempts=mail.attempts,
        next_attempt_at=mail.next_attempt_at if mail.state == MailState.pending else None,
        sent_at=mail.sent_at,
        # Of those written down by versions before this one, some quote the link.
        last_error=mail.last_error and without_tokens(mail.last_error),
        created_at=mail.created_at,
    )


class SmtpMailer:
    """Hands messages to the configured SMTP server, one connection each."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    async def send(self, message: EmailMessage) -> None:
        client, is_connected = self._client(), False
        try:
            # One bound for the whole conversation: one for each command would add up to more
            # than the lease of a claim.
            async with asyncio.timeout(self._settings.smtp_timeout_seconds):
                await client.connect()
                is_connected = True
                await client.send_message(message)
            with suppress(aiosmtplib.SMTPException, OSError):
                await client.quit(timeout=_FAREWELL_SECONDS)
        except (aiosmtplib.SMTPException, OSError, TimeoutError) as error:
            failure = _failure(error) if is_connected else Failure.unreachable
            raise NotSent(failure, _reason(error)) from error
        finally:
            # Not `async with client`: when cancelled, it would still wait for an answer to QUIT.
            client.close()

    async def greet(self) -> None:
        """Connect and log in as for a mail, and hang up. Raise NotSent if that fails."""
        client = self._client()
        try:
            async with asyncio.timeout(self._settings.smtp_timeout_seconds):
                await client.connect()
                await client.quit(timeout=_FAREWELL_SECONDS)
        except (aiosmtplib.SMTPException, OSError, TimeoutError) as error:
            raise NotSent(Failure.unreachable, _reason(error)) from error
        finally:
            client.close()

    def _client(self) -> aiosmtplib.SMTP:
        settings = self._settings
        password = settings.smtp_password
        return aiosmtplib.SMTP(
            hostname=settings.smtp_host,
            port=settings.smtp_port,
            username=settings.smtp_username,
            password=password.get_secret_value() if password else None,
            use_tls=settings.smtp_tls is SmtpTls.tls,
            start_tls=settings.smtp_tls is SmtpTls.starttls,
            timeout=settings.smtp_timeout_seconds,
        )


def _failure(error: Exception) -> Failure:
    """Return what an error after the login means. After one that is no answer the server may have
    taken the mail, and must not be sent it for ever."""
    match error:
        case aiosmtplib.SMTPResponseException():
            is_deferral = 400 <= error.code < 500  # noqa: PLR2004 RFC 5321 §4.2.1
        case aiosmtplib.SMTPRecipientsRefused():
            return _failure(error.recipients[0])
        case _:
            is_deferral = False
    return Failure.deferred if is_deferral else Failure.refused


def _reason(error: Exception) -> str:
    """Return the server's words; the kind of failure if there are none."""
    match error:
        case aiosmtplib.SMTPResponseException():
            return f"{error.code} {error.message}"
        case aiosmtplib.SMTPRecipientsRefused():
            return "; ".join(_reason(each) for each in error.recipients)
        case _:
            return type(error).__name__


class FolderMailer:
    """Keeps messages as `.eml` files: the development mailbox."""

    def __init__(self, folder: Path) -> None:
        self._folder = anyio.Path(folder)

    async def send(self, message: EmailMessage) -> None:
        # Mails hold links that open accounts: for the owner of the process alone.
        await self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        key = message["Message-ID"].strip("<>").partition("@")[0]
        file = self._folder / f"{key}.eml"
        await file.touch(mode=0o600)
        await file.write_bytes(message.as_bytes())


def mailer_for(settings: Settings) -> Mailer:
    """Return SMTP if a server is configured, the folder otherwise."""
    return SmtpMailer(settings) if settings.smtp_host else FolderMailer(settings.mail_dir)
