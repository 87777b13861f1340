"""Workers killed in the middle of a mail, Redis killed or frozen: nothing lost, the API answers."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from statistics import median

import pytest

from tests.support.process import Server
from tests.support.redis_server import RedisServer, running_redis
from tests.support.smtp import Sink
from tests.support.workers import House, house

pytestmark = pytest.mark.faults

# A claim is good for a minute, and so is a task that was not acknowledged.
PATIENCE_SECONDS = 120


@pytest.fixture
async def redis(tmp_path: Path) -> AsyncIterator[RedisServer]:
    async with running_redis(tmp_path) as found:
        yield found


@pytest.fixture
async def house_(tmp_path: Path, redis: RedisServer, sink: Sink) -> AsyncIterator[House]:
    async with house(tmp_path, redis, sink) as found:
        yield found


async def register_and_see_it_sent(house: House, name: str) -> None:
    """A registration whose mail is being sent: the server has it, and has not said so."""
    house.sink.hanging.add(f"{name}@example.com")
    await house.register(name)
    await house.all_arrived()
    assert house.mails()[f"{name}@example.com"] == "sending"


def kill_worker(worker: Server) -> None:
    os.killpg(worker.process.pid, signal.SIGKILL)


async def test_a_worker_killed_in_the_middle_of_a_mail_loses_none(
    house_: House, whole: bool
) -> None:
    """kill -9 of the whole worker: another one sends its mail again, once."""
    crashes = 5 if whole else 2
    async with house_.beat():
        for number in range(crashes):
            async with house_.worker() as worker:
                await all_ticked_off(house_)
                await register_and_see_it_sent(house_, f"caught{number}")
                kill_worker(worker)
                assert await worker.process.wait() == -signal.SIGKILL
            house_.sink.hanging.clear()
            await house_.register(f"after{number}")
            if not whole:
                house_.end_lease(f"caught{number}")
        async with house_.worker():
            await all_ticked_off(house_)
    expected = {f"caught{number}@example.com": 2 for number in range(crashes)}
    expected |= {f"after{number}@example.com": 1 for number in range(crashes)}
    assert house_.copies() == Counter(expected)
    copies = Counter(delivery.message_id for delivery in house_.sink.deliveries)
    assert len(copies) == 2 * crashes, "sent twice under one Message-ID"


async def test_a_process_of_a_worker_killed_in_the_middle_of_a_mail_is_replaced(
    house_: House, whole: bool
) -> None:
    """kill -9 of the process that sends: its worker goes on, and its task does not come up again
    and again."""
    crashes = 5 if whole else 2
    async with house_.beat(), house_.worker("--concurrency", "1") as worker:
        for number in range(crashes):
            await all_ticked_off(house_)
            await register_and_see_it_sent(house_, f"caught{number}")
            assert worker.end_children() == 1
            house_.sink.hanging.clear()
            await house_.register(f"after{number}")
            await house_.all_arrived()
            if not whole:
                house_.end_lease(f"caught{number}")
        await all_ticked_off(house_)
        assert worker.process.returncode is None
    expected = {f"caught{number}@example.com": 2 for number in range(crashes)}
    expected |= {f"after{number}@example.com": 1 for number in range(crashes)}
    assert house_.copies() == Counter(expected)


async def test_redis_killed_and_restarted_costs_no_mail(house_: House, whole: bool) -> None:
    """It has forgotten everything: queue, claims of tasks, counts."""
    async with house_.beat(), house_.worker(), house_.worker():
        for number in range(10 if whole else 2):
            await house_.register(f"before{number}")
            await house_.redis.kill()
            assert not await house_.redis.answers()
            await house_.register(*(f"away{number}-{each}" for each in range(3)))
            await house_.redis.start()
            await house_.register(f"after{number}")
            await house_.all_arrived(PATIENCE_SECONDS)
        await all_ticked_off(house_)
    assert set(house_.copies().values()) == {1}


async def test_a_frozen_redis_costs_requests_nothing_and_no_mail(
    house_: House, whole: bool
) -> None:
    """The limits fall back to the process, the wakes hang in a thread of their own."""
    seconds, api = (30 if whole else 8), house_.api
    assert api is not None
    async with house_.beat(), house_.worker():
        await house_.register("before")
        await house_.all_arrived()
        begun = len(api.log)
        house_.redis.freeze()
        is_over = asyncio.create_task(asyncio.sleep(seconds))
        number = 0
        # Each answered 201, so within the deadline for requests. Sixty an hour are allowed.
        while not is_over.done():
            await house_.register(f"frozen{number}")
            number += 1
            await asyncio.sleep(seconds / 40)
        assert not await house_.redis.answers()
        assert not house_.sink.to("frozen0@example.com"), "nobody tells the workers"
        house_.redis.thaw()
        await house_.all_arrived(PATIENCE_SECONDS)
        await all_ticked_off(house_)
    assert set(house_.copies().values()) == {1}
    lines = api.log[begun:]
    messages = Counter(line["message"] for line in lines)
    assert messages["redis does not answer, limits count in this process only"] == 1
    assert messages["redis takes no tasks"] == 1
    took = [line["duration_ms"] for line in lines if line["message"] == "request"]
    assert len(took) >= number
    assert median(took) < 1_000


async def all_ticked_off(house: House) -> None:
    """Wait until every mail is written down as sent: none comes up again."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while set(house.mails().values()) - {"sent"}:  # noqa: ASYNC110 nobody tells
            await asyncio.sleep(0.05)
