"""Delivery with several processes, killed processes and failing databases: still once."""

from __future__ import annotations

import asyncio
from collections import Counter
from email.message import EmailMessage
from typing import Any, Literal

import pytest
from sqlalchemy.exc import OperationalError, ProgrammingError
from sqlalchemy.ext.asyncio import AsyncSession

from app.config import Settings
from app.crud import outbox
from app.db.engine import Database, connect
from app.models.base import utc_now
from app.models.outbox import MailState
from app.tasks import delivery as delivering
from app.tasks import dispatcher as dispatching
from app.tasks.dispatcher import Dispatcher
from app.tasks.mail import SmtpMailer
from tests.support.delivery import A, started
from tests.support.mails import count, make_due, queue, stored
from tests.support.smtp import Sink


async def test_two_processes_send_each_mail_once(
    database: Database, dispatcher: Dispatcher, sink: Sink, smtp: Settings
) -> None:
    """A4: claims, with a second pool of connections as another process has."""
    people = [f"person{number}@example.com" for number in range(40)]
    await queue(database, *people)
    other = connect(smtp)
    try:
        async with started(dispatcher, Dispatcher(other, SmtpMailer(smtp), smtp)):
            await sink.arrived(lambda: len(sink.deliveries) >= len(people))
    finally:
        await other.dispose()
    copies = Counter(delivery.recipients[0] for delivery in sink.deliveries)
    assert copies == Counter(people)
    assert await count(database, MailState.sent) == len(people)


async def test_only_one_of_many_claims_wins(database: Database) -> None:
    [mail_id] = await queue(database, A)

    async def claim() -> bool:
        async with database.begin() as session:
            return await outbox.claim(session, mail_id=mail_id) is not None

    assert sum(await asyncio.gather(*(claim() for _ in range(10)))) == 1


class Killed(BaseException):
    """The end of a process: nothing catches it."""


class DyingMailer(SmtpMailer):
    """Hands the mail over, then the process dies before it can write that down."""

    async def send(self, message: EmailMessage) -> None:
        await super().send(message)
        raise Killed


async def test_the_mail_of_a_dead_process_comes_up_again_after_its_lease(
    database: Database, dispatcher: Dispatcher, sink: Sink, smtp: Settings
) -> None:
    """A4: with the same Message-ID, so that the reader's side can tell."""
    [mail_id] = await queue(database, A)
    before = utc_now()
    with pytest.raises(Killed):
        await Dispatcher(database, DyingMailer(smtp), smtp).deliver(mail_id)
    mail = await stored(database, mail_id)
    assert (mail.state, mail.attempts) == (MailState.sending, 1)
    assert before + outbox.LEASE <= mail.next_attempt_at <= utc_now() + outbox.LEASE
    await dispatcher.deliver(mail_id)
    assert len(sink.deliveries) == 1, "leased: nobody else may take it"
    await make_due(database, mail_id)
    async with started(dispatcher):
        await sink.arrived(lambda: len(sink.deliveries) == 2)
    first, second = sink.deliveries
    assert first.message_id == second.message_id
    assert (await stored(database, mail_id)).state == MailState.sent


async def test_stopping_waits_for_the_mail_in_the_making(
    database: Database, dispatcher: Dispatcher, sink: Sink
) -> None:
    [mail_id] = await queue(database, A)
    sink.hanging.add(A)
    async with started(dispatcher):
        await sink.arrived(lambda: sink.to(A))
        stopping = asyncio.create_task(dispatcher.stop())
        sink.released.set()
        await stopping
        assert (await stored(database, mail_id)).state == MailState.sent
    assert "outbox-dispatcher" not in {task.get_name() for task in asyncio.all_tasks()}


class WatchedEvent(asyncio.Event):
    """An event that shows when a task begins to wait for it."""

    def __init__(self) -> None:
        super().__init__()
        self.awaited = asyncio.Event()

    async def wait(self) -> Literal[True]:
        self.awaited.set()
        return await super().wait()


async def test_stopping_is_not_lost_on_a_dispatcher_that_is_just_waking(
    dispatcher: Dispatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    wake = WatchedEvent()
    monkeypatch.setattr(dispatcher, "_wake", wake)
    dispatcher.start()
    await wake.awaited.wait()
    await dispatcher.wake()
    stopping = asyncio.create_task(dispatcher.stop())
    stopped, _ = await asyncio.wait({stopping}, timeout=5)
    stopping.cancel()
    assert stopped


async def test_stopping_gives_up_on_a_server_that_hangs(
    database: Database,
    dispatcher: Dispatcher,
    sink: Sink,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A60: the mail stays in the outbox and comes up again after its lease."""
    monkeypatch.setattr(dispatching, "STOP_SECONDS", 0.05)
    [mail_id] = await queue(database, A)
    sink.hanging.add(A)
    dispatcher.start()
    await sink.arrived(lambda: sink.to(A))
    async with asyncio.timeout(5):
        await dispatcher.stop()
    mail = await stored(database, mail_id)
    assert (mail.state, mail.attempts) == (MailState.sending, 1)
    assert mail.next_attempt_at > utc_now()


async def test_a_dispatcher_that_never_started_can_be_stopped(dispatcher: Dispatcher) -> None:
    await dispatcher.stop()


async def test_a_busy_database_does_not_make_a_mail_go_out_twice(
    database: Database, dispatcher: Dispatcher, sink: Sink, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A4: what was sent is written down, even if the database is locked or away at first."""
    failures: list[Exception] = [locked(), ConnectionRefusedError()]
    mark_sent = outbox.mark_sent

    async def busy_at_first(*args: Any, **named: Any) -> None:
        if failures:
            raise failures.pop()
        await mark_sent(*args, **named)

    monkeypatch.setattr(outbox, "mark_sent", busy_at_first)
    monkeypatch.setattr(delivering, "BUSY_SECONDS", 0)
    [mail_id] = await queue(database, A)
    await dispatcher.deliver(mail_id)
    assert not failures
    assert (await stored(database, mail_id)).state == MailState.sent
    assert len(sink.deliveries) == 1


async def test_a_defect_in_writing_down_is_not_tried_for_ever(
    database: Database, dispatcher: Dispatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: Any, **__: Any) -> None:
        raise ProgrammingError("UPDATE", None, Exception("no such column"))

    monkeypatch.setattr(outbox, "mark_sent", broken)
    [mail_id] = await queue(database, A)
    with pytest.raises(ProgrammingError):
        await dispatcher.deliver(mail_id)


async def test_a_delivery_that_fails_is_told_and_the_others_go_on(
    database: Database,
    dispatcher: Dispatcher,
    sink: Sink,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    claim = outbox.claim

    async def broken_for_one(session: AsyncSession, *, mail_id: int) -> Any:
        if mail_id == broken:
            raise ProgrammingError("UPDATE", None, Exception("no such column"))
        return await claim(session, mail_id=mail_id)

    monkeypatch.setattr(outbox, "claim", broken_for_one)
    broken, _ = await queue(database, A, "b@example.com")
    async with started(dispatcher):
        await sink.arrived(lambda: len(sink.deliveries) == 1)
    assert sink.deliveries[0].recipients == ["b@example.com"]
    assert "mail left for later" in caplog.messages


async def test_no_more_mails_are_on_their_way_than_there_are_slots(
    database: Database, dispatcher: Dispatcher, sink: Sink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatching, "AT_ONCE", 1)
    sink.hanging.add(A)
    await queue(database, A, "b@example.com")
    async with started(dispatcher):
        await sink.arrived(lambda: sink.to(A))
        await dispatcher.wake()
        await asyncio.sleep(0.2)
        assert not sink.to("b@example.com")
        sink.released.set()
        await sink.arrived(lambda: len(sink.deliveries) == 2)


async def test_a_database_that_falls_silent_frees_the_dispatchers_slots(
    database: Database, dispatcher: Dispatcher, sink: Sink, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A9: else a handful of stuck deliveries would stop all mail until a restart."""
    silence = asyncio.Event()
    claim = outbox.claim

    async def silent(session: AsyncSession, *, mail_id: int) -> Any:
        await silence.wait()
        return await claim(session, mail_id=mail_id)

    monkeypatch.setattr(outbox, "claim", silent)
    monkeypatch.setattr(delivering, "DATABASE_SECONDS", 0.05)
    [mail_id] = await queue(database, A)
    with pytest.raises(TimeoutError):
        await dispatcher.deliver(mail_id)
    silence.set()
    monkeypatch.undo()
    await dispatcher.deliver(mail_id)
    assert len(sink.deliveries) == 1


def locked() -> OperationalError:
    return OperationalError("UPDATE", None, Exception("database is locked"))
