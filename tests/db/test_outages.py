"""A database that is away, silent, full or cut off: 503 in time, then normal operation."""

from __future__ import annotations

import asyncio
import gc
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Iterable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import httpx2
import pytest
from fastapi import FastAPI
from sqlalchemy.engine import make_url

from tests.conftest import wipe
from tests.support import faults
from tests.support.client import Client
from tests.support.openapi import Contract
from tests.support.proxied_app import ProxiedApp, new_account
from tests.support.proxy import proxy_for

on_servers = pytest.mark.parametrize("database_url", ["mariadb", "postgresql"], indirect=True)
# What the product promises: an answer within five seconds, whatever the database does.
PROMISED_SECONDS = 5.0
AT_ONCE_SECONDS = 1.0
# The bytes on the wire, distinct from `READ COMMITTED`.
_COMMITS = {"mysql": b"\x03COMMIT", "postgresql": b"COMMIT\x00"}


@pytest.fixture
def pool_size() -> int:
    """Connections of the app; tests that need few of them say so."""
    return 20


@pytest.fixture
async def proxied_app(
    database_url: str, shared_app: FastAPI, contract: Contract, tmp_path: Path, pool_size: int
) -> AsyncIterator[ProxiedApp]:
    url = make_url(database_url)
    async with proxy_for(url) as proxy:
        by_proxy = proxy.url if url.host else database_url
        async with faults.served_client(
            by_proxy, tmp_path, contract, database_pool_size=pool_size
        ) as client:
            ana = await client.user()
            path = f"/posts/{(await ana.write())['id']}"
            yield ProxiedApp(database_url, proxy, client, ana, path)
            proxy.thaw()
    await wipe(shared_app.state.database)


@pytest.fixture(autouse=True)
def no_noise(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """No task is forgotten, no connection left for the collector, no defect logged."""
    yield
    gc.collect()
    records = caplog.get_records("call") + caplog.get_records("teardown")
    assert [record.getMessage() for record in records if record.levelno >= logging.ERROR] == []


async def refused_in_time(requests: Iterable[Awaitable[httpx2.Response]]) -> float:
    """Every one is a 503 with Retry-After, within what is promised; the slowest one's time."""
    answers = await asyncio.gather(*map(timed, requests))
    for response, _ in answers:
        assert_unavailable(response)
    slowest = max(seconds for _, seconds in answers)
    assert slowest < PROMISED_SECONDS
    return slowest


async def timed(request: Awaitable[httpx2.Response]) -> tuple[httpx2.Response, float]:
    started = time.perf_counter()
    return await request, time.perf_counter() - started


def assert_unavailable(response: httpx2.Response) -> None:
    assert response.status_code == 503, response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["code"] == "service_unavailable"
    assert int(response.headers["retry-after"]) > 0


async def assert_all_well(proxied_app: ProxiedApp) -> None:
    """Every request succeeds, at the first try."""
    answers = await asyncio.gather(*proxied_app.requests())
    assert [answer.text for answer in answers if not answer.is_success] == []


async def healthy_meanwhile(client: Client, work: Awaitable[float]) -> float:
    """What the work returns; `/health` answers at once for as long as it takes."""
    task, looked = asyncio.ensure_future(work), 0
    while not task.done():
        response, seconds = await timed(client.get("/health"))
        assert response.status_code == 200
        assert seconds < AT_ONCE_SECONDS
        looked += 1
        await asyncio.wait([task], timeout=0.2)
    assert looked
    return await task


# --- Away ----------------------------------------------------------------------------------------


@on_servers
async def test_a_database_that_is_away_is_a_503_until_it_is_back(proxied_app: ProxiedApp) -> None:
    """A3, A10: refused connections are no defect of ours, and nothing has to be restarted."""
    await assert_all_well(proxied_app)
    with faults.counted_failures(proxied_app.database) as failures:
        proxied_app.proxy.go_away()
        requests = proxied_app.requests()
        await healthy_meanwhile(proxied_app.client, refused_in_time(requests))
    assert len(failures) >= len(requests), "every request met the fault"
    await proxied_app.proxy.come_back()
    await assert_all_well(proxied_app)


@on_servers
@pytest.mark.parametrize("pool_size", [5])
async def test_a_silent_database_is_a_503_in_time_and_forgotten_when_it_talks(
    proxied_app: ProxiedApp, pool_size: int
) -> None:
    """A9: it accepts connections and says nothing; what hangs cleans up behind the answers.

    Half of the requests meet it in the pool's connections, the others wait for one of these.
    """
    await assert_all_well(proxied_app)
    proxied_app.proxy.freeze()
    requests = proxied_app.requests()
    slowest = await healthy_meanwhile(proxied_app.client, refused_in_time(requests))
    assert slowest > AT_ONCE_SECONDS, "it was silence, not refusal"
    assert proxied_app.proxy.held_back >= pool_size
    proxied_app.proxy.thaw()
    await assert_all_well(proxied_app)
    await faults.eventually(lambda: faults.checked_out(proxied_app.database) == 0)
    await proxied_app.no_transaction_is_open()


@on_servers
@pytest.mark.parametrize("how", ["cut", "killed"])
async def test_connections_that_died_in_the_pool_are_replaced_unnoticed(
    proxied_app: ProxiedApp, how: str
) -> None:
    """By the network and by the server; by pings, and where there are none by another try."""
    await assert_all_well(proxied_app)
    before = proxied_app.proxy.accepted
    if how == "cut":
        proxied_app.proxy.cut()
    else:
        await proxied_app.kill_connections()
    await assert_all_well(proxied_app)
    assert proxied_app.proxy.accepted > before + 1, "the old ones were of no use any more"


@on_servers
async def test_statements_cut_off_in_the_middle_are_a_503(proxied_app: ProxiedApp) -> None:
    """A3: the connection dies under a statement that is being executed."""
    with (
        faults.counted_failures(proxied_app.database) as failures,
        faults.counted_locks(proxied_app.database) as locks,
    ):
        async with proxied_app.locked_row():
            edits = [proxied_app.rename(number) for number in range(5)]
            waiting = asyncio.ensure_future(refused_in_time(edits))
            await faults.eventually(lambda: len(locks) == len(edits))
            proxied_app.proxy.cut()
            await waiting
    assert proxied_app.proxy.cut_off >= 5
    assert len(failures) >= 5
    assert (await proxied_app.ana.get("/users/me")).json()["name"] == "Ana"
    await assert_all_well(proxied_app)


@on_servers
async def test_a_connection_cut_before_the_commit_leaves_nothing(proxied_app: ProxiedApp) -> None:
    """A1: twenty times, on routes that make, change and delete."""
    before = await faults.dump(proxied_app.database)
    with faults.sabotaged_commits(proxied_app.database, proxied_app.proxy.cut) as sabotage:
        for number in range(5):
            for request in (
                proxied_app.rename(number),
                proxied_app.ana.post(
                    "/posts", {"title": "New", "content": "New.", "tags": ["new"]}
                ),
                proxied_app.ana.delete(proxied_app.post),
                proxied_app.client.post("/auth/register", new_account()),
            ):
                assert_unavailable(await request)
    assert sabotage.hits == 20
    assert proxied_app.proxy.cut_off >= 20
    assert await faults.dump(proxied_app.database) == before


@on_servers
async def test_a_connection_cut_after_the_commit_leaves_what_was_done_once(
    proxied_app: ProxiedApp,
) -> None:
    """The server has committed, and its answer is lost: nobody can know, so nothing is repeated."""
    account = new_account()
    for request in (
        proxied_app.rename(1),
        proxied_app.ana.post(
            "/posts", {"title": "Once", "content": "Whole.", "tags": ["one", "two"]}
        ),
        proxied_app.client.post("/auth/register", account),
    ):
        # Leaves a connection in the pool: making one takes a COMMIT too.
        assert (await proxied_app.ana.patch(proxied_app.post, {"title": "Well"})).status_code == 200
        proxied_app.proxy.loses_answers_to = _COMMITS[proxied_app.database.dialect]
        assert_unavailable(await request)
        proxied_app.proxy.loses_answers_to = None
    assert proxied_app.proxy.answers_lost == 3
    assert (await proxied_app.ana.get("/users/me")).json()["name"] == "Name 1"
    found = (await proxied_app.ana.get("/posts", params={"q": "Once"})).json()["items"]
    assert [(post["content"], post["tags"]) for post in found] == [("Whole.", ["one", "two"])]
    assert await faults.count_mails(proxied_app.database, account["email"]) == 1
    await assert_all_well(proxied_app)


# --- Full ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("pool_size", [2])
async def test_an_exhausted_pool_is_a_503_until_a_connection_is_free(
    proxied_app: ProxiedApp, pool_size: int
) -> None:
    """A10: other tasks hold all connections. On SQLite only sessions need them."""
    waiting = (
        proxied_app.pooled_writes()
        if proxied_app.database.dialect == "sqlite"
        else proxied_app.requests()
    )
    async with AsyncExitStack() as held:
        for engine in {
            proxied_app.database.engine.pool: proxied_app.database.engine,
            proxied_app.database.reading.pool: proxied_app.database.reading,
        }.values():
            for _ in range(pool_size):
                await held.enter_async_context(engine.connect())
        assert faults.checked_out(proxied_app.database) == pool_size
        await healthy_meanwhile(proxied_app.client, refused_in_time(waiting))
    await assert_all_well(proxied_app)


@pytest.mark.parametrize("pool_size", [4])
async def test_writers_behind_a_lock_that_stays_are_a_503(
    proxied_app: ProxiedApp, pool_size: int
) -> None:
    """A10, A12: another session holds the lock; more writers wait than there are connections."""
    async with proxied_app.locked_row():
        writers = [proxied_app.rename(number) for number in range(3 * pool_size)]
        slowest = await healthy_meanwhile(proxied_app.client, refused_in_time(writers))
        assert slowest > AT_ONCE_SECONDS, "it was a lock they waited for"
    assert (await proxied_app.ana.get("/users/me")).json()["name"] == "Ana", (
        "nothing was done later"
    )
    await assert_all_well(proxied_app)
    await faults.eventually(lambda: faults.checked_out(proxied_app.database) == 0)


async def test_readers_do_not_wait_for_a_lock(proxied_app: ProxiedApp) -> None:
    """A12: a row, on SQLite the file, is locked for writing by another process."""
    async with proxied_app.locked_row():
        answers = await asyncio.gather(*(proxied_app.ana.get("/users/me") for _ in range(5)))
    assert [answer.status_code for answer in answers] == [200] * 5


# --- Callers who leave ---------------------------------------------------------------------------


async def test_callers_who_hang_up_leave_no_connection_behind(proxied_app: ProxiedApp) -> None:
    """A8: in the middle of a statement, and in the middle of a body."""
    async with proxied_app.locked_row():
        callers = [await proxied_app.hang_on(whole=number % 2 == 0) for number in range(10)]
        await faults.eventually(lambda: faults.checked_out(proxied_app.database) >= 5)
        for caller in callers:
            caller.transport.abort()
        # An answer from the same loop, so the hang-ups have been seen when it is there.
        assert (await proxied_app.client.get("/health")).status_code == 200
    await faults.eventually(lambda: faults.checked_out(proxied_app.database) == 0)
    await proxied_app.no_transaction_is_open()
    await assert_all_well(proxied_app)
