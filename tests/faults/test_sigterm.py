"""SIGTERM under load: nobody who was let in is turned away, and the process is gone in time."""

from __future__ import annotations

import asyncio
import signal
import time
from collections import Counter
from pathlib import Path
from random import Random

import pytest

from app.db.engine import Database
from tests.faults.ledger import Ledger
from tests.faults.report import Report
from tests.faults.worlds import World
from tests.faults.writers import WritingClient, writers
from tests.support.client import Client
from tests.support.smtp import Sink

pytestmark = pytest.mark.faults

EXIT_SECONDS = 10
WRITERS, PAUSE_SECONDS = 10, 0.1  # 100 requests a second


@pytest.fixture
def world(tmp_path: Path, database_url: str, database: Database, sink: Sink) -> World:
    """The database of this test process, a mail server that takes its time, and API servers:
    two processes where the database allows it."""
    sink.pace_seconds = 0.2
    return World.on(
        database,
        database_url,
        tmp_path,
        workers=1 if database.dialect == "sqlite" else 2,
        smtp_host="127.0.0.1",
        smtp_port=sink.port,
        smtp_tls="none",
    )


async def live_and_end(world: World, people: list[WritingClient], random: Random) -> float:
    """Serve everybody for a while, then SIGTERM at a moment when a request is under way: how long
    it took to exit."""
    async with world.server() as (server, _):
        writing = asyncio.gather(
            *(
                # Half of them knock anew each time: some are in the queue when it closes.
                each.write(
                    server.url, pause=PAUSE_SECONDS, alone=each.number % 2 == 0, until=lambda: False
                )
                for each in people
            )
        )
        await asyncio.sleep(random.uniform(0.5, 1.5))
        # A server that is idle half of the time would often be met idle.
        async with asyncio.timeout(2 * EXIT_SECONDS):
            while not any(each.in_flight for each in people):  # noqa: ASYNC110 no event for it
                await asyncio.sleep(random.uniform(0, 2 * PAUSE_SECONDS / WRITERS))
        started = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(2 * EXIT_SECONDS):
            status = await server.process.wait()
        took = time.monotonic() - started
        await writing
        assert status in {0, -signal.SIGTERM}
    return took


async def test_sigterm_cuts_no_request_off(
    world: World, client: Client, sink: Sink, report: Report, seed: int, whole: bool
) -> None:
    """At a hundred requests a second, while mails are being sent: all that was sent is answered,
    what was answered is there, no mail is sent twice."""
    times = 20 if whole else 3
    random, ledger = Random(seed), Ledger()
    people = await writers(client, ledger, seed=seed, count=WRITERS)
    slowest = 0.0
    lost: list[str] = []
    doubled: list[str] = []
    for number in range(1, times + 1):
        slowest = max(slowest, await live_and_end(world, people, random))
        wrong, twice = await ledger.settle(world.database)
        lost, doubled = lost + wrong, doubled + twice
        report.progress(f"end {number}/{times}, {ledger.acknowledged:,} writes acknowledged")
    cut = sum([each.cut for each in people], Counter[str]())
    mails = Counter(delivery.message_id for delivery in sink.deliveries)
    report.row(
        database=world.database.dialect,
        faults=times,
        requests=ledger.sent,
        acknowledged=ledger.acknowledged,
        lost=len(lost) + cut.total(),
        doubled=len(doubled) + mails.total() - len(mails),
        recovery=slowest,
    )
    assert (lost, doubled) == ([], [])
    assert cut == {}, "requests that were sent and not answered"
    assert [line for each in people for line in each.strange] == []
    assert max(mails.values()) == 1
    assert slowest <= EXIT_SECONDS
