"""Readiness: missing parts are named soon, however many clients ask and whatever hangs."""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, closing
from pathlib import Path

import httpx2
import pytest
from fastapi import FastAPI
from sqlalchemy import event
from sqlalchemy.engine import make_url

from app.db import sqlite
from tests.conftest import migrate
from tests.support import faults
from tests.support.apps import client_of
from tests.support.client import Client
from tests.support.diagnosis import execute
from tests.support.openapi import Contract
from tests.support.proxy import Proxy, proxy_for
from tests.support.rate_limits import REDIS_URL, redis_or_skip
from tests.support.schema import empty_database
from tests.support.sql import watched

on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
on_servers = pytest.mark.parametrize("database_url", ["mariadb", "postgresql"], indirect=True)
READY = "/health/ready"
# Looked for within a second; the rest is for a busy machine.
# A look may take a second; a request ten.
SOON_SECONDS = 6.0


@pytest.fixture
async def redis() -> AsyncIterator[Proxy]:
    """The tests' Redis, by a way that can be cut."""
    async with redis_or_skip(), proxy_for(make_url(REDIS_URL)) as found:
        yield found


@pytest.fixture
async def with_redis(client: Client, redis: Proxy, tmp_path: Path) -> AsyncIterator[Client]:
    async with client_of(client, tmp_path, redis_url=redis_url(redis)) as found:
        yield found


@pytest.fixture
async def proxied(
    database_url: str, contract: Contract, tmp_path: Path
) -> AsyncIterator[tuple[Proxy, Client]]:
    """An app on a socket, and the way to its database."""
    async with (
        proxy_for(make_url(database_url)) as proxy,
        faults.served_client(proxy.url, tmp_path, contract) as client,
    ):
        yield proxy, client
        proxy.thaw()


def redis_url(proxy: Proxy) -> str:
    return f"redis://127.0.0.1:{proxy.port}/{make_url(REDIS_URL).database}"


def assert_missing(response: httpx2.Response, *parts: str) -> None:
    assert response.status_code == 503, response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert int(response.headers["retry-after"]) > 0
    body = response.json()
    assert body["code"] == "not_ready"
    assert body["detail"] == (
        f"The server cannot serve requests. Not available: {', '.join(parts)}."
    )


async def test_it_is_ready_when_its_database_answers(client: Client) -> None:
    response = await client.get(READY)
    assert (response.status_code, response.json()) == (200, {"status": "ok"})


async def test_alive_touches_nothing(client: Client) -> None:
    with watched(client.database) as statements, pytest.MonkeyPatch.context() as patch:
        patch.setattr(client.app.state.readiness, "missing", None)
        assert (await client.get("/health")).status_code == 200
    assert statements == []


@on_servers
async def test_a_database_that_is_away_is_named_until_it_is_back(
    proxied: tuple[Proxy, Client],
) -> None:
    proxy, client = proxied
    assert (await client.get(READY)).status_code == 200
    proxy.go_away()
    assert_missing(await client.get(READY), "database")
    await proxy.come_back()
    assert (await client.get(READY)).status_code == 200


@on_servers
async def test_a_connection_that_was_cut_is_no_reason(proxied: tuple[Proxy, Client]) -> None:
    proxy, client = proxied
    assert (await client.get(READY)).status_code == 200
    proxy.cut()
    assert (await client.get(READY)).status_code == 200
    assert proxy.cut_off


@on_servers
async def test_a_frozen_database_is_named_soon_and_asked_by_one_at_a_time(
    proxied: tuple[Proxy, Client],
) -> None:
    proxy, client = proxied
    assert (await client.get(READY)).status_code == 200
    before = proxy.accepted
    proxy.freeze()
    for _ in range(2):
        started = time.perf_counter()
        answers = await asyncio.gather(*[client.get(READY) for _ in range(30)])
        assert time.perf_counter() - started < SOON_SECONDS
        for answer in answers:
            assert_missing(answer, "database")
    assert proxy.held_back
    # One anew for each round, and a driver's own to cancel what it asked.
    assert proxy.accepted - before <= 4
    proxy.thaw()

    async def is_ready() -> bool:
        return (await client.get(READY)).status_code == 200

    async with asyncio.timeout(10):
        while not await is_ready():  # noqa: ASYNC110 nothing announces it
            await asyncio.sleep(0.05)


async def test_a_busy_pool_is_no_reason_to_be_sent_nothing(client: Client, tmp_path: Path) -> None:
    async with client_of(client, tmp_path, database_pool_size=1) as busy, AsyncExitStack() as held:
        for engine in (busy.database.engine, busy.database.reading)[: _pools(busy)]:
            await held.enter_async_context(engine.connect())
        assert (await busy.get(READY)).status_code == 200


def _pools(client: Client) -> int:
    return 1 if client.database.dialect == "sqlite" else 2


async def test_a_database_that_is_not_migrated_is_told_until_it_is(
    database_url: str, contract: Contract, tmp_path: Path
) -> None:
    with empty_database(database_url, tmp_path) as url:
        async with faults.served_client(url, tmp_path, contract) as client:
            assert_not_migrated(await client.get(READY))
            spanish = await client.get(READY, headers={"Accept-Language": "es"})
            assert spanish.json()["detail"] == "La base de datos no está migrada a esta versión."
            assert (await client.get("/errors/not_migrated")).status_code == 200
            await asyncio.to_thread(migrate, url, tmp_path, "0001")
            assert_not_migrated(await client.get(READY))
            everything = await client.get(READY, params={"exclude": "database"})
            assert everything.status_code == 200
            await asyncio.to_thread(migrate, url, tmp_path)
            assert (await client.get(READY)).status_code == 200
            # A newer version may have migrated: this one goes on.
            await execute(url, "UPDATE alembic_version SET version_num = '9000'")
            assert (await client.get(READY)).status_code == 200
            await execute(url, "DELETE FROM alembic_version")
            assert_not_migrated(await client.get(READY))


@on_sqlite
async def test_a_database_that_fails_is_not_taken_for_one_without_tables(
    client: Client, tmp_path: Path
) -> None:
    def fail(*_: object) -> None:
        raise faults.sqlite_error(sqlite3.OperationalError, "disk I/O error", "SQLITE_IOERR")

    async with client_of(client, tmp_path) as other:
        event.listen(other.database.probing.sync_engine, "do_execute", fail)
        assert_missing(await other.get(READY), "database")


def assert_not_migrated(response: httpx2.Response) -> None:
    assert response.status_code == 503, response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert int(response.headers["retry-after"]) > 0
    body = response.json()
    assert body["code"] == "not_migrated"
    assert body["detail"] == "The database is not migrated to this version."


@on_sqlite
async def test_redis_is_named_when_it_is_away(with_redis: Client, redis: Proxy) -> None:
    assert (await with_redis.get(READY)).status_code == 200
    redis.go_away()
    assert_missing(await with_redis.get(READY), "redis")
    everything = await with_redis.get(READY, params={"exclude": "redis"})
    assert everything.status_code == 200, "a load balancer's question: all is served without"
    await redis.come_back()
    assert (await with_redis.get(READY)).status_code == 200


@on_sqlite
async def test_a_frozen_redis_is_named_soon(with_redis: Client, redis: Proxy) -> None:
    assert (await with_redis.get(READY)).status_code == 200
    before = redis.accepted
    redis.freeze()
    started = time.perf_counter()
    answers = await asyncio.gather(*[with_redis.get(READY) for _ in range(30)])
    assert time.perf_counter() - started < SOON_SECONDS
    for answer in answers:
        assert_missing(answer, "redis")
    assert redis.held_back
    assert redis.accepted - before <= 2
    redis.thaw()
    assert (await with_redis.get(READY)).status_code == 200


@on_sqlite
async def test_a_restart_of_redis_in_between_is_not_noticed(
    with_redis: Client, redis: Proxy
) -> None:
    assert (await with_redis.get(READY)).status_code == 200
    redis.cut()
    assert (await with_redis.get(READY)).status_code == 200
    assert redis.cut_off


async def test_all_that_is_missing_is_named(
    contract: Contract, redis: Proxy, tmp_path: Path
) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path}/empty.db"
    async with faults.served_client(url, tmp_path, contract, redis_url=redis_url(redis)) as client:
        redis.go_away()
        assert_missing(await client.get(READY), "migrations", "redis")
        excluded = await client.get(READY, params={"exclude": ["database", "redis"]})
        assert excluded.status_code == 200


@on_sqlite
async def test_nothing_else_can_be_excluded(client: Client) -> None:
    for exclude in (["server"], ["redis"] * 3, [""]):
        answer = await client.get(READY, params={"exclude": exclude})
        assert answer.status_code == 422


@on_sqlite
async def test_who_drains_is_sent_nothing_more(client: Client, tmp_path: Path) -> None:
    async with client_of(client, tmp_path) as other:
        other.app.state.readiness.drain()
        assert_missing(await other.get(READY), "server")
        assert (await other.get("/health")).status_code == 200
        assert (await other.get("/posts")).status_code == 200, "what comes all the same is served"


@on_sqlite
async def test_an_app_that_stops_drains_and_hangs_up(
    client: Client, redis: Proxy, tmp_path: Path
) -> None:
    async with client_of(client, tmp_path, redis_url=redis_url(redis)) as other:
        app: FastAPI = other.app
        async with app.router.lifespan_context(app):
            assert (await other.get(READY)).status_code == 200
        assert_missing(await other.get(READY, params={"exclude": "redis"}), "server")


@on_sqlite
async def test_who_stops_waits_for_nobody(client: Client, frozen_port: int, tmp_path: Path) -> None:
    url = f"redis://127.0.0.1:{frozen_port}"
    async with client_of(client, tmp_path, redis_url=url) as other:
        asking = asyncio.create_task(other.get(READY))
        readiness = other.app.state.readiness
        asked = readiness._lookups["database"]
        await faults.eventually(lambda: asked._asking is not None and asked._asking.done())
        await readiness.close()
        assert_missing(await asking, "redis")


@on_sqlite
async def test_what_is_excluded_has_not_changed(
    with_redis: Client, redis: Proxy, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "app.readiness")
    redis.go_away()
    for exclude in ([], ["redis"]) * 3:
        await with_redis.get(READY, params={"exclude": exclude})
    await redis.come_back()
    for exclude in (["redis"], []) * 3:
        await with_redis.get(READY, params={"exclude": exclude})
    missing = [vars(each)["missing"] for each in caplog.records if each.name == "app.readiness"]
    assert missing == ["redis", None]


@on_sqlite
async def test_changes_are_logged_once(
    with_redis: Client, redis: Proxy, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "app.readiness")
    for step in (redis.go_away, None, redis.come_back, None):
        if step is not None and (waiting := step()) is not None:
            await waiting
        await with_redis.get(READY)
    missing = [vars(each)["missing"] for each in caplog.records if each.name == "app.readiness"]
    assert missing == ["redis", None]


# --- Files that may only be read -----------------------------------------------------------------


def reasons_of(caplog: pytest.LogCaptureFixture) -> list[object]:
    return [vars(record)["reason"] for record in caplog.records if record.name == "app.readiness"]


@on_sqlite
async def test_a_file_that_may_only_be_read_is_not_ready(
    client: Client,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with client_of(client, tmp_path) as other:
        assert (await other.http.get(READY)).status_code == 200
        with monkeypatch.context() as patch:
            patch.setattr(os, "access", lambda path, _: Path(path).is_dir())
            answer = await other.http.get(READY)
        assert (answer.status_code, "database" in answer.json()["detail"]) == (503, True)
        assert (await other.http.get(READY)).status_code == 200
    assert reasons_of(caplog) == ["this user may not write to it", None]


@on_sqlite
async def test_a_connection_that_may_only_read_is_not_ready(
    client: Client,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Whatever the rights of the file say."""
    path = make_url(client.app.state.settings.database_url).database

    def open_readonly(*_: object) -> sqlite3.Connection:
        uri = f"file:{path}?mode=ro"
        return sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False)

    async with client_of(client, tmp_path) as other:
        with monkeypatch.context() as patch:
            patch.setattr(sqlite, "open_raw", open_readonly)
            answer = await other.http.get(READY)
        assert answer.status_code == 503
    assert reasons_of(caplog) == ["OperationalError SQLITE_READONLY"]


@on_sqlite
async def test_a_database_that_somebody_writes_is_ready(client: Client, tmp_path: Path) -> None:
    path = make_url(client.app.state.settings.database_url).database
    with closing(sqlite3.connect(str(path), isolation_level=None)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        async with client_of(client, tmp_path) as other:
            assert (await other.http.get(READY)).status_code == 200
        writer.execute("ROLLBACK")
