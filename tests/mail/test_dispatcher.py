"""Delivery of the outbox to a real SMTP server: once, in time, and after an outage."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Any

import httpx2
import pytest
from pydantic import SecretStr

from app.config import Settings
from app.core.security import Passwords
from app.crud import outbox
from app.db.engine import Database
from app.main import create_app
from app.models.base import utc_now
from app.models.outbox import Mail, MailState
from app.tasks import dispatcher as dispatching
from app.tasks.dispatcher import Dispatcher
from app.tasks.mail import SmtpMailer
from tests.conftest import CHEAP
from tests.support.client import Client
from tests.support.delivery import A, started
from tests.support.logs import kept_logging
from tests.support.mails import ADDRESSES, SENT_TO, addressed_to, make_due, queue, stored
from tests.support.smtp import Sink

NEVER = 3600.0


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> asyncio.Queue[Sequence[int]]:
    """What each look for due mails has found."""
    found: asyncio.Queue[Sequence[int]] = asyncio.Queue()

    async def due(*args: Any, **kwargs: Any) -> Sequence[int]:
        ids = await original(*args, **kwargs)
        found.put_nowait(ids)
        return ids

    original: Callable[..., Awaitable[Sequence[int]]] = outbox.due
    monkeypatch.setattr(outbox, "due", due)
    return found


async def test_a_mail_is_sent_once(database: Database, dispatcher: Dispatcher, sink: Sink) -> None:
    [mail_id] = await queue(database, A)
    async with started(dispatcher):
        await sink.arrived(lambda: sink.to(A))
    await dispatcher.deliver(mail_id)
    await make_due(database, mail_id)
    await dispatcher.deliver(mail_id)
    mail = await stored(database, mail_id)
    assert (mail.state, mail.attempts, mail.last_error) == (MailState.sent, 1, None)
    assert mail.sent_at is not None
    [delivery] = sink.deliveries
    assert delivery.recipients == [A]
    assert delivery.message_id == f"<{mail.key}@example.com>"


async def test_registering_wakes_the_dispatcher_of_the_process(
    client: Client, smtp: Settings, sink: Sink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatching, "POLL_SECONDS", NEVER)
    app = create_app(smtp, passwords=Passwords(CHEAP))
    transport = httpx2.ASGITransport(app=app)
    with kept_logging():
        async with (
            app.router.lifespan_context(app),
            httpx2.AsyncClient(transport=transport, base_url="http://testserver") as http,
        ):
            account = await Client(http, app, client.contract).register()
            await sink.arrived(lambda: sink.to(account["email"]))


@pytest.mark.parametrize("recipient", ADDRESSES)
async def test_the_server_is_told_exactly_one_recipient(
    database: Database, dispatcher: Dispatcher, sink: Sink, recipient: str
) -> None:
    """A5: one RCPT, one To."""
    [mail_id] = await queue(database, recipient)
    await dispatcher.deliver(mail_id)
    [delivery] = sink.deliveries
    assert len(sink.attempts) == 1
    sent_to = SENT_TO.get(recipient, recipient)
    assert delivery.recipients == [sent_to]
    assert addressed_to(delivery.message) == [sent_to]


async def test_an_internationalised_domain_needs_no_server_that_speaks_utf8(
    database: Database, dispatcher: Dispatcher, sink: Sink
) -> None:
    """Its A-label says the same in ASCII; of a local part beyond ASCII there is no other form."""
    sink.speaks_utf8 = False
    ids = await queue(database, "ana@exämple.com", "ana@straße.de", "josé@example.com")
    for mail_id in ids:
        await dispatcher.deliver(mail_id)
    sent = [delivery.recipients for delivery in sink.deliveries]
    assert sent == [["ana@xn--exmple-cua.com"], ["ana@xn--strae-oqa.de"]]
    assert [(await stored(database, mail_id)).state for mail_id in ids] == [
        *(MailState.sent, MailState.sent, MailState.pending)
    ]


async def test_a_sender_at_an_internationalised_domain_is_written_in_ascii(
    database: Database, smtp: Settings, sink: Sink
) -> None:
    settings = smtp.model_copy(update={"mail_from": "Cimiento <no-reply@exämple.com>"})
    sink.speaks_utf8 = False
    [mail_id] = await queue(database, A)
    await Dispatcher(database, SmtpMailer(settings), settings).deliver(mail_id)
    [delivery] = sink.deliveries
    assert delivery.message["From"].addresses[0].addr_spec == "no-reply@xn--exmple-cua.com"
    assert delivery.message_id.endswith("@xn--exmple-cua.com>")


@pytest.mark.parametrize("recipient", [A, "josé@example.com"])
async def test_a_subject_arrives_as_it_was_written(
    database: Database, dispatcher: Dispatcher, sink: Sink, recipient: str
) -> None:
    """However it is folded: a space that is lost on the way would make a link of `evil. com`."""
    names = [f"{'ñ' * number} evil. com ñ ñ ñ ñ ñ ñ ñ ñ" for number in range(10, 40, 3)]
    for name in names:
        [mail_id] = await queue(database, recipient, name=name)
        await dispatcher.deliver(mail_id)
    subjects = [delivery.message["Subject"] for delivery in sink.deliveries]
    assert subjects == [f"Welcome, {name}" for name in names]


async def test_waking_sends_without_waiting_for_the_next_look(
    database: Database,
    dispatcher: Dispatcher,
    sink: Sink,
    looks: asyncio.Queue[Sequence[int]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(dispatching, "POLL_SECONDS", NEVER)
    async with started(dispatcher):
        assert await looks.get() == []
        await queue(database, A)
        await dispatcher.wake()
        await sink.arrived(lambda: sink.to(A))


async def test_a_mail_nobody_woke_for_is_found_by_looking(
    database: Database,
    dispatcher: Dispatcher,
    sink: Sink,
    looks: asyncio.Queue[Sequence[int]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(dispatching, "POLL_SECONDS", 0.05)
    async with started(dispatcher):
        assert await looks.get() == []
        await queue(database, A)
        await sink.arrived(lambda: sink.to(A))


async def test_the_dispatcher_outlives_a_database_that_is_away(
    database: Database, dispatcher: Dispatcher, sink: Sink, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A3: it recovers without a restart."""
    monkeypatch.setattr(dispatching, "POLL_SECONDS", 0.05)
    failed = asyncio.Event()
    original = outbox.due

    async def due(*args: Any, **kwargs: Any) -> Sequence[int]:
        if failed.is_set():
            return await original(*args, **kwargs)
        failed.set()
        raise ConnectionRefusedError

    monkeypatch.setattr(outbox, "due", due)
    await queue(database, A)
    async with started(dispatcher):
        await sink.arrived(lambda: sink.to(A))
    assert failed.is_set()


async def test_an_outage_costs_no_attempt_and_the_mail_arrives_after_it(
    database: Database, dispatcher: Dispatcher, sink: Sink
) -> None:
    """A5: the server is down, for longer than any number of attempts."""
    [mail_id] = await queue(database, A)
    await sink.stop()
    for _ in range(outbox.MAX_ATTEMPTS + 2):
        before = utc_now()
        await dispatcher.deliver(mail_id)
        mail = await stored(database, mail_id)
        assert (mail.state, mail.attempts) == (MailState.pending, 0)
        assert mail.last_error
        assert 5 < (mail.next_attempt_at - before).total_seconds() < 60, "soon after recovery"
        await make_due(database, mail_id)
    await sink.start()
    await dispatcher.deliver(mail_id)
    assert (await stored(database, mail_id)).state == MailState.sent
    assert len(sink.to(A)) == 1


async def age(database: Database, mail_id: int, *, by: timedelta) -> None:
    async with database.begin() as session:
        mail = await session.get_one(Mail, mail_id)
        mail.created_at -= by


async def test_a_server_that_defers_costs_no_attempt_and_the_mail_arrives_after_it(
    database: Database, dispatcher: Dispatcher, sink: Sink
) -> None:
    """A5: 4xx, more often than any mail is tried."""
    [mail_id] = await queue(database, A)
    sink.answers[A] = "452 4.3.1 disk full"
    for tries in range(1, outbox.MAX_ATTEMPTS + 3):
        await dispatcher.deliver(mail_id)
        assert len(sink.attempts) == tries
        mail = await stored(database, mail_id)
        assert (mail.state, mail.attempts) == (MailState.pending, 0)
        assert mail.last_error is not None
        assert mail.last_error.startswith("452")
        assert 5 < (mail.next_attempt_at - mail.updated_at).total_seconds() < 60
        await make_due(database, mail_id)
    del sink.answers[A]
    await dispatcher.deliver(mail_id)
    assert (await stored(database, mail_id)).state == MailState.sent
    assert len(sink.to(A)) == 1


ANSWERS = {"451 4.3.0 try later": timedelta(days=3), "550 5.1.1 nobody here": timedelta(0)}


@pytest.mark.parametrize("answer", ANSWERS)
async def test_a_refused_mail_is_tried_less_and_less_often_and_given_up_after_eight_attempts(
    database: Database, dispatcher: Dispatcher, sink: Sink, answer: str
) -> None:
    """A5: 5xx, and 4xx for days."""
    [mail_id] = await queue(database, A)
    await age(database, mail_id, by=ANSWERS[answer])
    sink.answers[A] = answer
    waits = []
    for attempt in range(1, outbox.MAX_ATTEMPTS):
        await dispatcher.deliver(mail_id)
        mail = await stored(database, mail_id)
        assert (mail.state, mail.attempts) == (MailState.pending, attempt)
        waits.append((mail.next_attempt_at - mail.updated_at).total_seconds())
        await dispatcher.deliver(mail_id)
        assert len(sink.attempts) == attempt, "not before its time"
        await make_due(database, mail_id)
    await dispatcher.deliver(mail_id)
    mail = await stored(database, mail_id)
    assert (mail.state, mail.attempts) == (MailState.dead, 8)
    assert mail.last_error is not None
    assert answer[:3] in mail.last_error
    assert [round(wait) for wait in waits] == [10, 20, 40, 50, 50, 50, 50]
    await make_due(database, mail_id)
    await dispatcher.deliver(mail_id)
    assert len(sink.attempts) == 8
    assert sink.deliveries == []


async def test_poison_and_hanging_mails_do_not_delay_the_others(
    database: Database, dispatcher: Dispatcher, sink: Sink
) -> None:
    """A5: a mail that cannot be written, one that is refused and one whose server hangs."""
    refused, hanging = "refused@example.com", "hanging@example.com"
    unwritable, *_ = await queue(database, "not an address", refused, hanging)
    good = [f"good{number}@example.com" for number in range(20)]
    await queue(database, *good)
    sink.answers[refused] = "550 nobody here"
    sink.hanging.add(hanging)
    async with started(dispatcher):
        await sink.arrived(lambda: all(sink.to(each) for each in [*good, hanging]))
        sink.released.set()
    assert len(sink.deliveries) == len(good) + 1
    mail = await stored(database, unwritable)
    assert (mail.state, mail.attempts) == (MailState.pending, 1)
    assert mail.last_error


async def test_a_slow_conversation_ends_before_the_claim_does(
    database: Database, sink: Sink, smtp: Settings
) -> None:
    """One timeout bounds a whole delivery, not each of its steps."""
    assert smtp.smtp_timeout_seconds < outbox.LEASE.total_seconds()
    hurried = smtp.model_copy(update={"smtp_timeout_seconds": 0.5})
    sink.pace_seconds = 0.4
    [mail_id] = await queue(database, A)
    await Dispatcher(database, SmtpMailer(hurried), hurried).deliver(mail_id)
    mail = await stored(database, mail_id)
    # It counts: the server may have taken the mail, and must not be sent it for ever.
    assert (mail.state, mail.attempts) == (MailState.pending, 1)
    assert mail.last_error == "TimeoutError"


async def test_a_login_the_server_refuses_is_no_fault_of_the_mail(
    database: Database, sink: Sink, smtp: Settings
) -> None:
    """With a wrong SMTP_PASSWORD nothing can be sent at all, until an operator sets it right."""
    wrong = smtp.model_copy(
        update={"smtp_username": "user", "smtp_password": SecretStr("wrong-canary")}
    )
    [mail_id] = await queue(database, A)
    await Dispatcher(database, SmtpMailer(wrong), wrong).deliver(mail_id)
    mail = await stored(database, mail_id)
    assert (mail.state, mail.attempts) == (MailState.pending, 0)
    assert mail.last_error is not None
    assert mail.last_error.startswith("535")
    assert "canary" not in mail.last_error
    assert sink.attempts == []
