"""kill -9 of the API while people write: what was acknowledged is there, and nothing by halves."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from random import Random

import pytest

from app.db.engine import Database
from tests.faults.ledger import Ledger
from tests.faults.report import Report
from tests.faults.worlds import World
from tests.faults.writers import WritingClient, writers
from tests.support.client import Client

pytestmark = pytest.mark.faults

READY_SECONDS = 5
SHORTEST_LIFE_SECONDS, LONGEST_LIFE_SECONDS = 0.1, 1.5


@pytest.fixture
def world(tmp_path: Path, database_url: str, database: Database) -> World:
    """The database of this test process, and servers on it."""
    return World.on(database, database_url, tmp_path)


async def live_and_die(
    world: World, people: list[WritingClient], seconds: float
) -> tuple[int, float]:
    """Serve everybody for so long, then kill -9: how many requests it cut, and how long it took
    to be ready."""
    async with world.server() as (server, took):
        writing = asyncio.gather(*(each.write(server.url, until=lambda: False) for each in people))
        await asyncio.sleep(seconds)
        server.process.send_signal(signal.SIGKILL)
        in_flight = sum(each.in_flight for each in people)
        await writing
        assert await server.process.wait() == -signal.SIGKILL
    return in_flight, took


async def test_what_was_acknowledged_outlives_kill_9(
    world: World, client: Client, report: Report, seed: int, whole: bool
) -> None:
    """Eight writers; after each kill every row is what was answered, or asked for last."""
    everywhere = world.database.dialect == "sqlite"
    kills = (100 if everywhere else 40) if whole else (4 if everywhere else 2)
    random, ledger = Random(seed), Ledger()
    people = await writers(client, ledger, seed=seed)
    in_flight, slowest = 0, 0.0
    lost: list[str] = []
    doubled: list[str] = []
    for kill in range(1, kills + 1):
        life = random.uniform(SHORTEST_LIFE_SECONDS, LONGEST_LIFE_SECONDS)
        cut, took = await live_and_die(world, people, life)
        in_flight, slowest = in_flight + cut, max(slowest, took)
        wrong, twice = await ledger.settle(world.database)
        lost, doubled = lost + wrong, doubled + twice
        report.progress(f"kill {kill}/{kills}, {ledger.acknowledged:,} writes acknowledged")
        if lost or doubled:
            break
    report.row(
        database=world.database.dialect,
        faults=kill,
        requests=ledger.sent,
        acknowledged=ledger.acknowledged,
        lost=len(lost),
        doubled=len(doubled),
        recovery=slowest,
    )
    assert (lost, doubled) == ([], [])
    assert [line for each in people for line in each.strange] == []
    assert in_flight >= kills, "the kills met requests"
    assert ledger.acknowledged >= kills
    assert slowest <= READY_SECONDS
