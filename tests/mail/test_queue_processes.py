"""API, worker and beat as separate processes on a real Redis."""

from __future__ import annotations

import asyncio
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.redis_server import RedisServer, running_redis
from tests.support.smtp import Sink
from tests.support.workers import Deployment, running_deployment

pytestmark = pytest.mark.long

PASSWORD = "canary-of-redis"


@pytest.fixture
async def redis(tmp_path: Path) -> AsyncIterator[RedisServer]:
    async with running_redis(tmp_path, PASSWORD) as found:
        yield found


@pytest.fixture
async def deployment(tmp_path: Path, redis: RedisServer, sink: Sink) -> AsyncIterator[Deployment]:
    async with running_deployment(tmp_path, redis, sink) as found:
        yield found


async def test_who_registers_gets_a_mail_from_a_worker(deployment: Deployment, sink: Sink) -> None:
    """Woken by the API alone; with beat too, a mail nobody woke for."""
    async with deployment.worker() as worker:
        await deployment.register("ana")
        await deployment.all_arrived()
        async with deployment.beat() as beat:
            await deployment.redis.kill()
            await deployment.register("bea")
            await deployment.redis.start()
            await deployment.all_arrived()
            assert await beat.end(signal.SIGTERM) == 0
        assert await worker.end(signal.SIGTERM) == 0
    assert set(Counter(delivery.message_id for delivery in sink.deliveries).values()) == {1}
    assert PASSWORD not in str([*worker.log, *beat.log])
    assert [*(deployment.folder / "data").iterdir()] == [], "beat keeps no file"


async def test_a_worker_ends_within_ten_seconds_in_the_middle_of_a_mail(
    deployment: Deployment, sink: Sink
) -> None:
    sink.hanging.add("ana@example.com")
    async with deployment.worker() as worker:
        await deployment.register("ana")
        await deployment.all_arrived()
        started = time.monotonic()
        async with asyncio.timeout(20):
            assert await worker.end(signal.SIGTERM) == 0
        assert time.monotonic() - started <= 10
        assert "stopped in the middle of a task" in {line["message"] for line in worker.log}


async def test_a_frozen_redis_keeps_nobody_from_ending(deployment: Deployment) -> None:
    async with deployment.worker() as worker, deployment.beat() as beat:
        deployment.redis.freeze()
        await deployment.register("ana")
        assert deployment.api is not None
        started = time.monotonic()
        every = (worker, beat, deployment.api)
        ended = await asyncio.gather(*(each.end(signal.SIGTERM) for each in every))
        assert time.monotonic() - started <= 10
        assert set(ended) <= {0, -signal.SIGTERM}
    assert deployment.mails() == {"ana@example.com": "pending"}
