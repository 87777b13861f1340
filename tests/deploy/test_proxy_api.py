"""The reverse proxy in front of the API while one of its processes ends."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

import httpx2
import pytest

from tests.support.client import API, PASSWORD
from tests.support.faults import eventually
from tests.support.nginx import proxying
from tests.support.process import Server, environment, run_command, serving

pytestmark = pytest.mark.long

BROKEN = 0


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as found:
        yield found


@pytest.fixture
async def env(tmp_path: Path) -> dict[str, str]:
    """Settings of two servers on one migrated SQLite file, behind a proxy on this machine."""
    variables = environment(
        data_dir=tmp_path / "data",
        secret_key="tests-0123456789abcdefghijklmnopqrstuv",
        port=0,
        # A slow machine is no outage; the proxy waits for 15 s.
        request_timeout_seconds=12,
        trusted_proxies="127.0.0.1",
        # One author writes all the time.
        posts_per_minute=0,
    )
    status, _, complaint = await run_command("migrate", cwd=tmp_path, env=variables)
    assert status == 0, complaint
    return variables


async def _log_in(http: httpx2.AsyncClient) -> None:
    """Register and log in a new user, with a forged `X-Forwarded-For`."""
    account = {"email": "ana@example.com", "name": "Ana", "password": PASSWORD}
    assert (await http.post(f"{API}/auth/register", json=account)).status_code == 201
    form = {"username": "ana@example.com", "password": PASSWORD}
    liar = {"X-Forwarded-For": "6.6.6.6"}
    login = await http.post(f"{API}/auth/login", data=form, headers=liar)
    http.headers["Authorization"] = f"Bearer {login.json()['access_token']}"


@dataclass
class Load:
    """Some who read and some who write without a pause; the status of each answer, BROKEN for
    one that ended half-way."""

    http: httpx2.AsyncClient
    reads: list[int] = field(default_factory=list)
    writes: dict[str, int] = field(default_factory=dict)
    over: asyncio.Event = field(default_factory=asyncio.Event)

    async def read(self) -> None:
        while not self.over.is_set():
            try:
                self.reads.append((await self.http.get(f"{API}/posts")).status_code)
            except httpx2.RemoteProtocolError:
                self.reads.append(BROKEN)

    async def write(self, name: str) -> None:
        number = 0
        while not self.over.is_set():
            title, number = f"{name} {number}", number + 1
            post = {"title": title, "content": "", "status": "published"}
            try:
                response = await self.http.post(f"{API}/posts", json=post)
                self.writes[title] = response.status_code
            except httpx2.RemoteProtocolError:
                self.writes[title] = BROKEN

    async def so_many_more(self, number: int) -> None:
        """Return when both sorts have had so many more answers."""
        reads, writes = len(self.reads) + number, len(self.writes) + number
        await eventually(
            lambda: len(self.reads) >= reads and len(self.writes) >= writes, seconds=40
        )


async def _titles(http: httpx2.AsyncClient) -> Counter[str]:
    """How often each title is there."""
    titles, page = Counter[str](), 1
    while page:
        body = (await http.get(f"{API}/posts", params={"page": page, "page_size": 100})).json()
        titles.update(post["title"] for post in body["items"])
        page = page + 1 if body["has_next"] else 0
    return titles


@pytest.fixture
async def http(
    stack: AsyncExitStack, tmp_path: Path, env: dict[str, str]
) -> AsyncIterator[tuple[httpx2.AsyncClient, Server]]:
    """A client logged in through a proxy before two servers, and the first of these."""
    servers = [await stack.enter_async_context(serving(tmp_path, env)) for _ in range(2)]
    ports = [server.port for server in servers]
    proxy = await stack.enter_async_context(proxying(tmp_path / "nginx", *ports))
    async with httpx2.AsyncClient(base_url=proxy.url, timeout=20) as client:
        await _log_in(client)
        yield client, servers[0]


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM], ids=["kill -9", "update"])
async def test_the_end_of_one_process_shows_in_no_read_and_doubles_no_write(
    http: tuple[httpx2.AsyncClient, Server], how: signal.Signals
) -> None:
    client, server = http
    (session,) = (await client.get(f"{API}/auth/sessions")).json()["items"]
    assert session["ip"] == "127.0.0.1", "the proxy's word counts, not the client's"
    load = Load(client)
    work = [load.read(), load.read(), load.write("a"), load.write("b")]
    running = asyncio.gather(*work)
    await load.so_many_more(20)
    assert await server.end(how) in {0, -how}
    await load.so_many_more(5)
    settled = len(load.reads), len(load.writes)
    await load.so_many_more(40)
    load.over.set()
    await running

    # No proxy mends an answer whose beginning is out already.
    broken = {BROKEN} if how is signal.SIGKILL else set()
    assert set(load.reads) <= {200} | broken, "the other one answered"
    writes = [*load.writes.values()]
    assert set(writes) <= {201, 503} | broken, "503 where it was on its way to the one that ended"
    assert {*load.reads[settled[0] :], *writes[settled[1] :]} == {200, 201}
    titles = await _titles(client)
    assert max(titles.values()) == 1
    assert set(titles) >= {title for title, status in load.writes.items() if status == 201}
