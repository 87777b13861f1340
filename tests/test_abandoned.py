"""Requests that end before their statements do: these end too, and nothing of them is left."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest
from fastapi import FastAPI
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncEngine

from app.models.tags import Tag
from app.reading import Query
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
DEADLINE_SECONDS = 1.0
_numbers = itertools.count()
SECONDS = 8  # that a statement takes unless something ends it


@dataclass
class Scene:
    """An app with statements that take long, and what its server tells of them."""

    client: Client
    proxy: Proxy
    server: Server

    async def no_statement_is_left(self) -> None:
        """Within a second of the request's end, which is nothing like SECONDS."""
        async with asyncio.timeout(1):
            while await self.server.sleeping():  # noqa: ASYNC110 nothing tells
                await asyncio.sleep(0.02)

    async def all_sleep(self, number: int) -> None:
        async with asyncio.timeout(5):
            while await self.server.sleeping() < number:  # noqa: ASYNC110 nothing tells
                await asyncio.sleep(0.02)

    async def is_well(self) -> None:
        """More at once than there are connections, and none was lost."""
        answers = await asyncio.gather(*(self.client.get("/posts") for _ in range(2 * POOL_SIZE)))
        assert [each.status_code for each in answers] == [200] * 2 * POOL_SIZE
        answers = await asyncio.gather(
            *(self.client.http.post("/quick") for _ in range(2 * POOL_SIZE))
        )
        assert [each.status_code for each in answers] == [200] * 2 * POOL_SIZE
        await faults.eventually(lambda: faults.checked_out(self.client.database) == 0)
        assert await self.server.transactions() == 0


def add_routes(app: FastAPI, statement: str) -> None:
    """What only these tests have: a statement that takes long, on each path to the database."""
    state = app.state
    query = Query(text(statement).columns())  # type: ignore[arg-type]  # nothing is selected from

    @app.get("/read")
    async def read() -> None:
        await state.reader.rows(query, {})

    @app.post("/session")
    async def session() -> None:
        async with state.database.begin() as opened:
            opened.add(Tag(name=f"abandoned {next(_numbers)}"))
            await opened.flush()
            await opened.execute(text(statement))

    @app.post("/short")
    async def short() -> None:
        await state.writer.run(lambda unit: unit._execute(statement, ()))

    @app.post("/quick")
    async def quick() -> None:
        async with state.database.begin() as opened:
            await opened.execute(text("SELECT 1"))


@pytest.fixture
async def scene(
    database_url: str, shared_app: FastAPI, contract: Contract, tmp_path: Path
) -> AsyncIterator[Scene]:
    async with (
        proxy_for(make_url(database_url)) as proxy,
        servers.watched(database_url) as server,
        faults.served_client(
            proxy.url,
            tmp_path,
            contract,
            database_pool_size=POOL_SIZE,
            request_timeout_seconds=DEADLINE_SECONDS,
        ) as client,
    ):
        add_routes(client.app, server.sleep(SECONDS))
        yield Scene(client, proxy, server)
        proxy.thaw()
    await wipe(shared_app.state.database)


@on_servers
@pytest.mark.parametrize("path", ["GET /read", "POST /session", "POST /short"])
async def test_statements_end_with_the_deadline_of_their_requests(scene: Scene, path: str) -> None:
    """24 of them, on 5 connections: never more than documented are open."""
    method, url = path.split()
    async with scene.server.counted_connections() as counted:
        answers = await asyncio.gather(*(scene.client.http.request(method, url) for _ in range(24)))
        assert [each.status_code for each in answers] == [503] * 24
        await scene.no_statement_is_left()
        await scene.is_well()
    assert counted.slept >= POOL_SIZE, "they were under way"
    print("MOST", counted)
    assert counted.most <= MOST
