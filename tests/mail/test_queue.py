"""The task queue: what is put into it, its bounds, and the cost of an outage of Redis."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from kombu.transport.redis import Channel
from redis.asyncio import Redis

from app.tasks import queue as queueing
from app.tasks.dispatcher import Dispatcher
from app.tasks.fallback import Fallback
from app.tasks.queue import DELIVER, ENOUGH, QUEUE, SWEEP, CeleryNotifier, Publisher, celery_for
from tests.conftest import make_settings
from tests.support.apps import app_of
from tests.support.logs import Output
from tests.support.queues import in_memory, waiting
from tests.support.redis_server import RedisServer, free_port, running_redis


@pytest.fixture
async def redis(tmp_path: Path) -> AsyncIterator[RedisServer]:
    async with running_redis(tmp_path, "canary:/@of?redis") as found:
        yield found


@pytest.fixture
def silent() -> Iterator[str]:
    """The URL of a Redis that takes connections, and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"redis://127.0.0.1:{listener.getsockname()[1]}/0"


def celery_at(redis_url: str) -> Any:
    return celery_for(make_settings("sqlite://", Path("data"), redis_url=redis_url))


# --- Reaching Redis --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://cache", ("cache", 6379, 0, None, None)),
        ("redis://cache:7000/3", ("cache", 7000, 3, None, None)),
        ("redis://:p%40ss%2F@cache/1", ("cache", 6379, 1, None, "p@ss/")),
        ("redis://u%3A:p@[::1]:7000/1", ("::1", 7000, 1, "u:", "p")),
        ("redis://cache?password=p&db=2&health_check_interval=9", ("cache", 6379, 2, None, "p")),
        ("rediss://u:p@cache/1", ("cache", 6379, 1, "u", "p")),
    ],
)
def test_the_queue_is_in_the_redis_of_the_url(url: str, expected: tuple[object, ...]) -> None:
    found = celery_at(url).connection_for_write()
    parts = (found.hostname, found.port, int(found.virtual_host), found.userid, found.password)
    assert parts == expected


async def test_the_options_of_the_queue_are_known_to_the_library(redis: RedisServer) -> None:
    """A misspelt one would be ignored, and its default is an hour in which nothing happens."""
    celery = celery_at(redis.url)
    options = celery.conf.broker_transport_options
    # These are read where the connection is opened.
    of_channel = set(options) - {"unacked_restore_interval", "max_retries"}
    assert of_channel <= set(Channel.from_transport_options)

    def channel() -> Any:
        with celery.connection_for_write() as connection:
            return connection.default_channel

    found = await asyncio.to_thread(channel)
    assert {name: getattr(found, name) for name in of_channel} == {
        name: options[name] for name in of_channel
    }


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", {"ssl_cert_reqs": "required"}),
        ("?ssl_ca_certs=/ca.pem", {"ssl_cert_reqs": "required", "ssl_ca_certs": "/ca.pem"}),
        ("?ssl_cert_reqs=none", {"ssl_cert_reqs": "none"}),
    ],
)
def test_tls_verifies_the_server_unless_told_otherwise(
    query: str, expected: dict[str, str]
) -> None:
    assert celery_at(f"rediss://cache{query}").conf.broker_use_ssl == expected
    assert celery_at("redis://cache").conf.broker_use_ssl is None


async def test_a_wake_arrives_by_tls(tmp_path: Path) -> None:
    async with running_redis(tmp_path, with_tls=True) as server:
        place = f"127.0.0.1:{server.tls_port}/0"
        trusted = celery_at(f"rediss://{place}?ssl_ca_certs={server.certificate}")
        # By another name: the library shares the connections of equal ones.
        stranger = celery_at(f"rediss://localhost:{server.tls_port}/0")
        assert await asyncio.to_thread(Publisher(trusted).publish, SWEEP)
        assert not await asyncio.to_thread(Publisher(stranger).publish, SWEEP)
        assert await asyncio.to_thread(waiting, trusted) == [(SWEEP, [])]


# --- What goes into it -----------------------------------------------------------------------


async def test_the_keys_in_redis_are_recognisable(redis: RedisServer) -> None:
    publisher = Publisher(celery_at(redis.url))
    assert await asyncio.to_thread(publisher.publish, DELIVER, [(1,), (2,)])
    async with Redis.from_url(redis.url) as client:
        keys = [key.decode() for key in await client.keys()]
        assert all("cimiento" in key for key in keys)
        assert await cast("Awaitable[int]", client.llen(QUEUE)) == 2


def test_a_queue_nobody_works_off_does_not_grow() -> None:
    celery = in_memory(celery_at("redis://nowhere"))
    publisher = Publisher(celery)
    published = [publisher.publish(SWEEP) for _ in range(ENOUGH + 50)]
    assert published == [True] * ENOUGH + [False] * 50
    assert not publisher.publish(DELIVER, [(1,)])
    assert len(waiting(celery)) == ENOUGH
    assert publisher.publish(DELIVER, [(1,), (2,)]), "now that it was worked off"
    assert waiting(celery) == [(DELIVER, [1]), (DELIVER, [2])]


# --- Outages ---------------------------------------------------------------------------------


def test_an_outage_is_told_once_and_so_is_its_end(
    logs: Output, caplog: pytest.LogCaptureFixture
) -> None:
    celery = celery_at(f"redis://:canary@127.0.0.1:{free_port()}/0")
    publisher = Publisher(celery)
    assert not any(publisher.publish(SWEEP) for _ in range(3))
    publisher._celery = in_memory(celery_at("redis://nowhere"))
    assert all(publisher.publish(SWEEP) for _ in range(3))
    # Not what a thread logs that a frozen Redis still holds up from before.
    own = [each for each in caplog.records if each.thread == threading.get_ident()]
    messages = [each.getMessage() for each in own if each.name == "app.queue"]
    assert messages == ["redis takes no tasks", "redis takes tasks again"]
    assert "canary" not in str(logs.entries())


async def test_waking_waits_for_nothing_even_if_redis_is_frozen(
    silent: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queueing, "STOP_SECONDS", 0.05)
    waker = CeleryNotifier(make_settings("sqlite://", Path("data"), redis_url=silent))
    await waker.wake()
    waker.start()
    started = time.monotonic()
    for _ in range(1_000):
        await waker.wake()
    await waker.stop()
    # The publisher's own timeouts are ten times as long.
    assert time.monotonic() - started < 2


async def test_wakes_of_the_same_moment_are_one(monkeypatch: pytest.MonkeyPatch) -> None:
    published: list[str] = []
    begun, go_on = threading.Event(), threading.Event()

    def publish(_: Publisher, task: str) -> None:
        published.append(task)
        begun.set()
        go_on.wait(10)

    monkeypatch.setattr(Publisher, "publish", publish)
    monkeypatch.setattr(queueing, "PAUSE_SECONDS", 0)
    waker = CeleryNotifier(make_settings("sqlite://", Path("data"), redis_url="redis://nowhere"))
    waker.start()
    await waker.wake()
    await asyncio.to_thread(begun.wait, 10)
    begun.clear()
    for _ in range(100):
        await waker.wake()
    go_on.set()
    assert await asyncio.to_thread(begun.wait, 10), "what came during the first is not lost"
    await waker.stop()
    assert published == [SWEEP, SWEEP]


async def test_a_waker_that_never_ran_can_be_stopped() -> None:
    await CeleryNotifier(
        make_settings("sqlite://", Path("data"), redis_url="redis://nowhere")
    ).stop()


# --- Which engine ----------------------------------------------------------------------------


async def test_workers_deliver_where_there_is_a_redis_and_the_process_itself_elsewhere(
    tmp_path: Path,
) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path}/test.db"
    for redis_url, engine in (("redis://nowhere", Fallback), (None, Dispatcher)):
        async with app_of(make_settings(url, tmp_path, redis_url=redis_url)) as app:
            assert type(app.state.dispatcher) is engine
