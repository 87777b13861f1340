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
from tests.support.workers import Deployment, running_deployment

pytestmark = pytest.mark.faults

# A claim is good for a minute, and so is a task that was not acknowledged.
PATIENCE_SECONDS = 120


@pytest.fixture
async def redis(tmp_path: Path) -> AsyncIterator[RedisServer]:
    async with running_redis(tmp_path) as found:
        yield found


@pytest.fixture
async def deployment(tmp_path: Path, redis: RedisServer, sink: Sink) -> AsyncIterator[Deployment]:
    async with running_deployment(tmp_path, redis, sink) as found:
        yield found


async def register_and_see_it_sent(deployment: Deployment, name: str) -> None:
    """A registration whose mail is being sent: the server has it, and has not said so."""
    deployment.sink.hanging.add(f"{name}@example.com")
    await deployment.register(name)
    await deployment.all_arrived()
    assert deployment.mails()[f"{name}@example.com"] == "sending"


def kill_worker(worker: Server) -> None:
    os.killpg(worker.process.pid, signal.SIGKILL)


async def test_a_worker_killed_in_the_middle_of_a_mail_loses_none(
    deployment: Deployment, whole: bool
) -> None:
    """kill -9 of the whole worker: another one sends its mail again, once."""
    crashes = 5 if whole else 2
    async with deployment.beat():
        for number in range(crashes):
            async with deployment.worker() as worker:
                await all_ticked_off(deployment)
                await register_and_see_it_sent(deployment, f"caught{number}")
                kill_worker(worker)
                assert await worker.process.wait() == -signal.SIGKILL
            deployment.sink.hanging.clear()
            await deployment.register(f"after{number}")
            if not whole:
                deployment.end_lease(f"caught{number}")
        async with deployment.worker():
            await all_ticked_off(deployment)
    expected = {f"caught{number}@example.com": 2 for number in range(crashes)}
    expected |= {f"after{number}@example.com": 1 for number in range(crashes)}
    assert deployment.copies() == Counter(expected)
    copies = Counter(delivery.message_id for delivery in deployment.sink.deliveries)
    assert len(copies) == 2 * crashes, "sent twice under one Message-ID"


async def test_a_process_of_a_worker_killed_in_the_middle_of_a_mail_is_replaced(
    deployment: Deployment, whole: bool
) -> None:
    """kill -9 of the process that sends: its worker goes on, and its task does not come up again
    and again."""
    crashes = 5 if whole else 2
    async with deployment.beat(), deployment.worker("--concurrency", "1") as worker:
        for number in range(crashes):
            await all_ticked_off(deployment)
            await register_and_see_it_sent(deployment, f"caught{number}")
            assert worker.end_children() == 1
            deployment.sink.hanging.clear()
            await deployment.register(f"after{number}")
            await deployment.all_arrived()
            if not whole:
                deployment.end_lease(f"caught{number}")
        await all_ticked_off(deployment)
        assert worker.process.returncode is None
    expected = {f"caught{number}@example.com": 2 for number in range(crashes)}
    expected |= {f"after{number}@example.com": 1 for number in range(crashes)}
    assert deployment.copies() == Counter(expected)


async def test_redis_killed_and_restarted_costs_no_mail(
    deployment: Deployment, whole: bool
) -> None:
    """It has forgotten everything: queue, claims of tasks, counts."""
    async with deployment.beat(), deployment.worker(), deployment.worker():
        for number in range(10 if whole else 2):
            await deployment.register(f"before{number}")
            await deployment.redis.kill()
            assert not await deployment.redis.answers()
            await deployment.register(*(f"away{number}-{each}" for each in range(3)))
            await deployment.redis.start()
            await deployment.register(f"after{number}")
            await deployment.all_arrived(PATIENCE_SECONDS)
        await all_ticked_off(deployment)
    assert set(deployment.copies().values()) == {1}


async def test_a_frozen_redis_costs_requests_nothing_and_no_mail(
    deployment: Deployment, whole: bool
) -> None:
    """The limits fall back to the process, the wakes hang in a thread of their own."""
    seconds, api = (30 if whole else 8), deployment.api
    assert api is not None
    async with deployment.beat(), deployment.worker():
        await deployment.register("before")
        await deployment.all_arrived()
        begun = len(api.log)
        deployment.redis.freeze()
        is_over = asyncio.create_task(asyncio.sleep(seconds))
        number = 0
        # Each answered 201, so within the deadline for requests. Sixty an hour are allowed.
        while not is_over.done():
            await deployment.register(f"frozen{number}")
            number += 1
            await asyncio.sleep(seconds / 40)
        assert not await deployment.redis.answers()
        assert not deployment.sink.to("frozen0@example.com"), "nobody notifies the workers"
        deployment.redis.thaw()
        await deployment.all_arrived(PATIENCE_SECONDS)
        await all_ticked_off(deployment)
    assert set(deployment.copies().values()) == {1}
    lines = api.log[begun:]
    messages = Counter(line["message"] for line in lines)
    assert messages["redis does not answer, limits count in this process only"] == 1
    assert messages["redis takes no tasks"] == 1
    took = [line["duration_ms"] for line in lines if line["message"] == "request"]
    assert len(took) >= number
    assert median(took) < 1_000


async def all_ticked_off(deployment: Deployment) -> None:
    """Wait until every mail is written down as sent: none comes up again."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while set(deployment.mails().values()) - {"sent"}:  # noqa: ASYNC110 no event for it
            await asyncio.sleep(0.05)
