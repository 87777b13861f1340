"""PostgreSQL connections that fall silent are detected, and no others are closed."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url

from app.db import silence
from app.db.engine import Database, connect
from app.db.silence import Sessions, watched
from tests.conftest import make_settings
from tests.support import faults
from tests.support.client import Client
from tests.support.openapi import Contract
from tests.support.people import new_user
from tests.support.proxy import Proxy, proxy_for

on_postgresql = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
RECOVERED_SECONDS = 5.0


@pytest.fixture
async def proxied(
    database_url: str,
    app: Any,  # noqa: ARG001 empties the database
    contract: Contract,
    tmp_path: Path,
) -> AsyncIterator[tuple[Proxy, Client]]:
    """An app on a socket, and the way to its database."""
    async with (
        proxy_for(make_url(database_url)) as proxy,
        faults.served_client(proxy.url, tmp_path, contract) as client,
    ):
        yield proxy, client


@on_postgresql
@pytest.mark.parametrize("idle_seconds", [0, 1.5])
async def test_silent_connections_are_recovered_from(
    proxied: tuple[Proxy, Client], idle_seconds: float
) -> None:
    """Reads and writes, whichever comes first; all connections of all pools are silent."""
    proxy, client = proxied
    person = await new_user(client)
    body = {"title": "Title", "content": "text"}
    reads: list[Awaitable[httpx2.Response]] = [person.get("/tags") for _ in range(10)]
    await asyncio.gather(*reads, *[person.post("/posts", body) for _ in range(10)])
    assert (await client.get("/health/ready")).status_code == 200
    await asyncio.sleep(idle_seconds)
    opened = proxy.accepted
    proxy.silence()
    started = time.monotonic()
    async with asyncio.timeout(30):
        await asyncio.gather(
            *[_until(200, lambda: person.get("/users/me")) for _ in range(3)],
            *[_until(201, lambda: person.post("/posts", body)) for _ in range(3)],
            _until(204, lambda: person.delete("/auth/sessions")),
            _until(200, lambda: client.get("/health/ready")),
        )
    assert time.monotonic() - started < RECOVERED_SECONDS
    assert proxy.held_back
    assert proxy.accepted > opened


async def _until(status: int, ask: Any) -> None:
    while True:
        answer = await ask()
        if answer.status_code == status:
            return
        assert answer.status_code == 503
        await asyncio.sleep(0.05)


@pytest.fixture
async def direct(database_url: str, tmp_path: Path) -> AsyncIterator[Database]:
    opened = connect(make_settings(database_url, tmp_path))
    yield opened
    await opened.dispose()


@on_postgresql
async def test_a_slow_statement_is_left_alone(
    direct: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(silence, "SILENCE_SECONDS", 0.1)
    for engine in (direct.engine, direct.reading):
        async with engine.connect() as connection:
            slept = await connection.execute(text("SELECT 7 FROM pg_sleep(1)"))
            assert slept.scalar_one() == 7


# --- Without a server ----------------------------------------------------------------------------


class Wire:
    """What is known of a connection: its socket, whose other end the test has."""

    backend_pid = 7

    def __init__(self) -> None:
        self.ours, self.theirs = socket.socketpair()
        self.ours.settimeout(0.3)

    @property
    def socket(self) -> int:
        return self.ours.fileno()


@pytest.fixture
def wire(monkeypatch: pytest.MonkeyPatch) -> Iterator[Wire]:
    monkeypatch.setattr(silence, "SILENCE_SECONDS", 0.01)
    monkeypatch.setattr(silence, "_GRACE_SECONDS", 0.01)
    monkeypatch.setattr(silence, "_KEEP_SECONDS", 0)
    opened = Wire()
    yield opened
    opened.ours.close()
    opened.theirs.close()


class Server:
    """Tells of one session, by a connection of which nothing else is used."""

    def __init__(self, *states: str | Exception) -> None:
        self.states = [*states]
        self.closed = 0

    async def connect(self) -> Server:
        return self

    async def execute(self, _: str) -> Server:
        return self

    async def fetchall(self) -> list[tuple[int, str]]:
        state = self.states.pop(0) if len(self.states) > 1 else self.states[0]
        if isinstance(state, Exception):
            raise state
        return [(7, state), (8, "active")]

    async def close(self) -> None:
        self.closed += 1


async def is_cut(wire: Wire, server: Server | None) -> bool:
    sessions = Sessions(server.connect) if server else None
    with watched(wire, sessions):
        await asyncio.sleep(0.4)
    if sessions:
        await sessions.close()
    wire.theirs.setblocking(False)
    try:
        return wire.theirs.recv(1) == b""
    except BlockingIOError:
        return False


@pytest.mark.parametrize("state", ["idle", "idle in transaction"])
async def test_a_session_that_does_nothing_for_us_is_cut(wire: Wire, state: str) -> None:
    server = Server("active", OSError(), state)
    assert await is_cut(wire, server)
    assert server.closed == 3


@pytest.mark.parametrize("state", ["active", "disabled", OSError()])
async def test_one_that_works_or_of_which_nothing_is_known_is_not(
    wire: Wire, state: str | Exception
) -> None:
    assert not await is_cut(wire, Server(state))


async def test_one_that_is_not_known_is_not_looked_at(wire: Wire) -> None:
    assert not await is_cut(wire, None)


async def test_an_answer_in_time_asks_nobody(wire: Wire) -> None:
    server = Server("idle")
    with watched(wire, Sessions(server.connect)):
        pass
    await asyncio.sleep(0.05)
    assert server.closed == 0
