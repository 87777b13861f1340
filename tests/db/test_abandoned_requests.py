"""Statements and transactions of abandoned requests are ended."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from fastapi import FastAPI
from sqlalchemy import func, select, text
from sqlalchemy.engine import make_url

from app.db.queries import PreparedQuery
from app.models.tags import Tag
from app.web.middleware.timeout import LOOK_SECONDS
from tests.conftest import wipe
from tests.support import faults, servers
from tests.support.client import Client
from tests.support.openapi import Contract
from tests.support.proxy import Proxy, proxy_for
from tests.support.servers import Server

on_servers = pytest.mark.parametrize("database_url", ["mariadb", "postgresql"], indirect=True)
POOL_SIZE = 5
# Two pools, the connection that looks whether the database answers, and the one that kills.
MOST = 2 * POOL_SIZE + 2
_numbers = itertools.count()
SECONDS = 8  # that a statement takes unless something ends it


@dataclass
class SlowApp:
    """An app with statements that take long, and what its server tells of them."""

    client: Client
    proxy: Proxy
    server: Server

    async def no_statement_is_left(self, *, within: float = 1) -> None:
        """Return when none is: soon after its request's end, which is nothing like SECONDS."""
        async with asyncio.timeout(within):
            while await self.server.sleeping():  # noqa: ASYNC110 nothing tells
                await asyncio.sleep(0.02)

    async def are_under_way(self, number: int) -> None:
        """Return when so many statements are."""
        async with asyncio.timeout(5):
            while await self.server.sleeping() < number:  # noqa: ASYNC110 nothing tells
                await asyncio.sleep(0.02)

    async def ask(self, path: str) -> asyncio.StreamWriter:
        """Send a request and return the stream of its client, which may hang up at any time."""
        url = self.client.http.base_url
        _, writer = await asyncio.open_connection(url.host, url.port)
        writer.write(f"{path} HTTP/1.1\r\nHost: testserver\r\nContent-Length: 0\r\n\r\n".encode())
        await writer.drain()
        return writer

    def nothing_is_taken(self) -> bool:
        """Whether all connections are in their pools."""
        database = self.client.database
        engines = (database.engine, database.reading)
        return not any(faults.checked_out(database, engine) for engine in engines)

    async def is_well(self) -> None:
        """More at once than there are connections, and none was lost."""
        answers = await asyncio.gather(*(self.client.get("/posts") for _ in range(2 * POOL_SIZE)))
        assert [each.status_code for each in answers] == [200] * 2 * POOL_SIZE
        answers = await asyncio.gather(
            *(self.client.http.post("/quick") for _ in range(2 * POOL_SIZE))
        )
        assert [each.status_code for each in answers] == [200] * 2 * POOL_SIZE
        await faults.eventually(self.nothing_is_taken)
        assert await self.server.transactions() == 0


def add_routes(app: FastAPI, statement: str) -> None:
    """What only these tests have: a statement that takes long, on each path to the database."""
    state = app.state
    query = PreparedQuery(text(statement).columns())  # type: ignore[arg-type]  # nothing is selected from

    @app.get("/read")
    async def read() -> None:
        await state.query_runner.rows(query, {})

    @app.post("/session")
    async def session() -> None:
        async with state.database.begin() as opened:
            opened.add(Tag(name=f"abandoned {next(_numbers)}"))
            await opened.flush()
            await opened.execute(text(statement))

    @app.post("/short")
    async def short() -> None:
        await state.transaction_runner.run(lambda transaction: transaction._execute(statement, ()))

    @app.post("/quick")
    async def quick() -> None:
        async with state.database.begin() as opened:
            await opened.execute(text("SELECT 1"))


@pytest.fixture
def deadline() -> float:
    """Seconds that requests have; tests that need another time say so."""
    return 2.0


@pytest.fixture
async def slow_app(
    database_url: str, shared_app: FastAPI, contract: Contract, tmp_path: Path, deadline: float
) -> AsyncIterator[SlowApp]:
    async with (
        proxy_for(make_url(database_url)) as proxy,
        servers.watched(database_url) as server,
        faults.served_client(
            proxy.url,
            tmp_path,
            contract,
            database_pool_size=POOL_SIZE,
            request_timeout_seconds=deadline,
        ) as client,
    ):
        add_routes(client.app, server.sleep(SECONDS))
        yield SlowApp(client, proxy, server)
        proxy.thaw()
    await wipe(shared_app.state.database)


@on_servers
@pytest.mark.parametrize("path", ["GET /read", "POST /session", "POST /short"])
async def test_statements_end_with_the_deadline_of_their_requests(
    slow_app: SlowApp, path: str
) -> None:
    """24 of them, on 5 connections: never more than documented are open."""
    method, url = path.split()
    async with slow_app.server.counted_connections() as counted:
        answers = await asyncio.gather(
            *(slow_app.client.http.request(method, url) for _ in range(24))
        )
        assert [each.status_code for each in answers] == [503] * 24
        await slow_app.no_statement_is_left()
        await slow_app.is_well()
    assert counted.slept >= POOL_SIZE, "they were under way"
    assert counted.most <= MOST


@on_servers
@pytest.mark.parametrize("deadline", [6.0])
async def test_reads_end_when_their_clients_hang_up(slow_app: SlowApp) -> None:
    """A8: long before their time is up."""
    async with slow_app.server.counted_connections() as counted:
        for _ in range(3):
            callers = [await slow_app.ask("GET /read") for _ in range(POOL_SIZE)]
            await slow_app.are_under_way(POOL_SIZE)
            for caller in callers:
                caller.transport.abort()
            await slow_app.no_statement_is_left(within=LOOK_SECONDS + 1)
        await slow_app.is_well()
    assert counted.most <= MOST


@on_servers
@pytest.mark.parametrize("deadline", [4.0])
async def test_writes_go_on_when_their_clients_hang_up(slow_app: SlowApp, deadline: float) -> None:
    """Until their time is up: half of the work is for nobody, the whole of it may be."""
    callers = [await slow_app.ask(f"POST /{path}") for path in ("session", "short")]
    await slow_app.are_under_way(2)
    for caller in callers:
        caller.transport.abort()
    await asyncio.sleep(2 * LOOK_SECONDS)
    assert await slow_app.server.sleeping() == 2
    await slow_app.no_statement_is_left(within=deadline)
    await slow_app.is_well()


@on_servers
@pytest.mark.parametrize("cancellations", [1, 2])
async def test_a_cancelled_transaction_leaves_no_lock_behind(
    slow_app: SlowApp, cancellations: int
) -> None:
    """When the task has ended: its locks are there to be taken at once."""
    database, name = slow_app.client.database, f"abandoned {next(_numbers)}"

    async def work() -> None:
        async with database.begin() as session:
            session.add(Tag(name=name))
            await session.flush()
            await session.execute(text(slow_app.server.sleep(SECONDS)))

    task = asyncio.create_task(work())
    await slow_app.are_under_way(1)
    for _ in range(cancellations):
        task.cancel()
        await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError):
        async with asyncio.timeout(1):
            await task
    async with asyncio.timeout(1):
        async with database.begin() as session:
            assert await session.scalar(select(func.count()).select_from(Tag)) == 0
            session.add(Tag(name=name))
    await slow_app.no_statement_is_left()
    await slow_app.is_well()


@on_servers
async def test_a_server_that_has_gone_silent_holds_nothing_for_long(slow_app: SlowApp) -> None:
    """What was under way cannot be ended there; the places in the pools are free all the same."""
    asking = [
        asyncio.ensure_future(slow_app.client.http.request(method, path))
        for method, path in [("GET", "/read"), ("POST", "/session"), ("POST", "/short")]
    ]
    await slow_app.are_under_way(3)
    slow_app.proxy.freeze()
    assert [each.status_code for each in await asyncio.gather(*asking)] == [503] * 3
    await faults.eventually(slow_app.nothing_is_taken, seconds=3)
    slow_app.proxy.thaw()
    await slow_app.server.kill_sleeping()
    await slow_app.is_well()
