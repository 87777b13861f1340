"""Processes whose clocks differ by ten minutes: comparisons use the database's clock."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest

from app.config import Settings
from app.crud import backlog, outbox
from app.db.engine import Database
from app.db.queries import open_query_runner
from app.db.rows import database_now
from app.models.base import utc_now
from app.models.outbox import MailState
from app.tasks.dispatcher import Dispatcher
from app.tasks.mail import SmtpMailer
from tests.support import faults, mails
from tests.support.client import PASSWORD, Client
from tests.support.clock import AHEAD, clocks_apart
from tests.support.smtp import Sink

APART = timedelta(minutes=10)
MAILS = 30


@pytest.fixture(autouse=True)
def _clocks(monkeypatch: pytest.MonkeyPatch) -> None:
    clocks_apart(monkeypatch)


@asynccontextmanager
async def at_work(dispatcher: Dispatcher, ahead: timedelta) -> AsyncIterator[None]:
    """A dispatcher whose clock is ahead."""
    token = AHEAD.set(ahead)
    dispatcher.start()  # its tasks keep the clock that it begins with
    AHEAD.reset(token)
    try:
        yield
    finally:
        await dispatcher.stop()


async def test_clocks_are_apart() -> None:
    now = utc_now()
    AHEAD.set(APART)
    assert utc_now() - now > APART - timedelta(seconds=9)


async def test_two_workers_send_nothing_twice(
    database: Database, other_process: Database, smtp: Settings, sink: Sink
) -> None:
    """Neither while a mail is being sent, which takes a while, nor later."""
    sink.pace_seconds = 0.5
    here = Dispatcher(database, SmtpMailer(smtp), smtp)
    there = Dispatcher(other_process, SmtpMailer(smtp), smtp)
    ids = await mails.queue(database, *(f"user{number}@example.com" for number in range(MAILS)))
    async with at_work(here, timedelta()), at_work(there, APART):
        await faults.eventually(lambda: len(sink.deliveries) >= MAILS, seconds=30)
        await asyncio.sleep(1.5)  # one more look of each
    received = Counter(each.message_id for each in sink.deliveries)
    assert len(received) == MAILS
    assert set(received.values()) == {1}
    for mail_id in ids:
        assert (await mails.stored(database, mail_id)).state == MailState.sent


@pytest.mark.parametrize("ahead", [APART, -APART])
async def test_what_one_enqueues_or_puts_back_is_due_to_the_other(
    database: Database, ahead: timedelta
) -> None:
    AHEAD.set(ahead)
    [mail_id] = await mails.queue(database, "ana@example.com")
    reader = open_query_runner(database)
    measured = await backlog.measure(reader)
    await reader.dispose()
    assert measured.lag_seconds < 60
    async with database.begin() as session:
        claimed = await outbox.claim(session, mail_id=mail_id)
        now = await database_now(session)
        assert claimed is not None
        assert claimed.next_attempt_at - now < 2 * outbox.LEASE
    AHEAD.set(timedelta())
    async with database.begin() as session:
        assert await outbox.claim(session, mail_id=mail_id) is None
    AHEAD.set(ahead)
    async with database.begin() as session:
        await outbox.mark_failed(
            session, claimed=claimed, reason="busy", failure=outbox.Failure.deferred
        )
    AHEAD.set(timedelta())
    waiting = await mails.stored(database, mail_id)
    assert timedelta() < waiting.next_attempt_at - utc_now() < timedelta(minutes=1)
    AHEAD.set(ahead)
    async with database.begin() as session:
        await outbox.retry(session, mail_id=mail_id)
    AHEAD.set(timedelta())
    async with database.begin(readonly=True) as session:
        assert await outbox.due(session, limit=1) == [mail_id]


@pytest.mark.parametrize("ahead", [APART, -APART])
async def test_a_refresh_token_used_at_two_servers_at_once_is_no_theft(
    client: Client, ahead: timedelta
) -> None:
    """The second is answered as the first, whatever the clocks say."""
    account = await client.register()
    tokens = await client.log_in(account["email"], PASSWORD)
    body = {"refresh_token": tokens["refresh_token"]}
    first = await client.post("/auth/refresh", body)
    AHEAD.set(ahead)
    second = await client.post("/auth/refresh", body)
    assert (first.status_code, second.status_code) == (200, 200)
    assert first.json()["refresh_token"] == second.json()["refresh_token"]


async def test_the_database_tells_the_time(database: Database) -> None:
    AHEAD.set(APART)
    async with database.begin(readonly=True) as session:
        server_time = await database_now(session)
    AHEAD.set(timedelta())
    assert abs(server_time - utc_now()) < timedelta(minutes=1)
