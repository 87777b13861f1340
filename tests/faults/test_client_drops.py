"""Clients that hang up: in the middle of what they send, of waiting, of what they are sent."""

from __future__ import annotations

import asyncio
import json
import secrets
import socket
import struct
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import pytest
from sqlalchemy import text

from app.db.engine import Database
from tests.faults.ledger import half_rows
from tests.faults.report import Report
from tests.faults.worlds import World, http_to
from tests.support.client import API, Client, Person
from tests.support.people import new_user
from tests.support.process import Server

pytestmark = pytest.mark.faults

POOL = 5
AT_ONCE = 20
SETTLED_SECONDS = 10
_RESET = struct.pack("ii", 1, 0)
# What other connections to this database are doing: none may be inside a transaction.
_OPEN = {
    "mysql": "SELECT count(*) FROM information_schema.innodb_trx t JOIN"
    " information_schema.processlist p ON p.id = t.trx_mysql_thread_id WHERE p.db = database()",
    "postgresql": "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
    " AND pid <> pg_backend_pid() AND xact_start IS NOT NULL",
}
# MariaDB looks anew only when nobody has asked for a tenth of a second.
_LOOK_SECONDS = 0.25
_LISTEN, _TIME_WAIT = "0A", "06"


@pytest.fixture
def world(tmp_path: Path, database_url: str, database: Database) -> World:
    """The database of this test process, and a server with few connections to it."""
    return World.on(database, database_url, tmp_path, database_pool_size=POOL)


# --- Hanging up ------------------------------------------------------------------------------


class Dropper:
    """A client that begins a request and hangs up at some moment of it."""

    def __init__(self, server: Server, person: Person, post_id: int, random: Random) -> None:
        self._server, self._person, self._random = server, person, random
        self._post = f"{API}/posts/{post_id}"
        self.dropped: Counter[str] = Counter()

    async def drop(self) -> None:
        """Hang up once: with a reset, or politely."""
        moment = self._random.choice([self.in_head, self.in_body, self.waiting, self.reading])
        reader, writer = await asyncio.open_connection("127.0.0.1", self._server.port)
        if self._random.random() < 0.5:
            raw = writer.get_extra_info("socket")
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        await moment(reader, writer)
        self.dropped[moment.__name__] += 1
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()

    async def in_head(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = self._request()
        writer.write(request[: self._random.randint(1, request.index(b"\r\n\r\n"))])
        await self._moment(writer)

    async def in_body(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = self._request()
        body = request.index(b"\r\n\r\n") + 4
        writer.write(request[: self._random.randint(body, len(request) - 1)])
        await self._moment(writer)

    async def waiting(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(self._request())
        await self._moment(writer)

    async def reading(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(self._encoded("GET", f"{API}/posts?page_size=100", b""))
        await writer.drain()
        assert await reader.read(100), "an answer had begun"

    async def _moment(self, writer: asyncio.StreamWriter) -> None:
        await writer.drain()
        await asyncio.sleep(self._random.choice([0, 0.001, 0.005, 0.02]))

    def _request(self) -> bytes:
        """A write: a new post, or a change to one that everybody here fights over."""
        body = json.dumps({"title": secrets.token_hex(4), "content": "x" * 20_000}).encode()
        if self._random.random() < 0.5:
            return self._encoded("POST", f"{API}/posts", body)
        return self._encoded("PATCH", self._post, body)

    def _encoded(self, method: str, path: str, body: bytes) -> bytes:
        head = [
            f"{method} {path} HTTP/1.1",
            "Host: testserver",
            "Content-Type: application/json",
            f"Content-Length: {len(body)}",
            *(f"{name}: {value}" for name, value in self._person.headers.items()),
        ]
        return "\r\n".join([*head, "", ""]).encode() + body


# --- What is left open -----------------------------------------------------------------------


async def number(database: Database, statement: str) -> int:
    async with database.begin(readonly=True) as session:
        return int((await session.execute(text(statement))).scalar_one())


async def open_transactions(database: Database) -> int:
    """Those of others on this database."""
    if database.dialect in _OPEN:
        return await number(database, _OPEN[database.dialect])
    # On SQLite a writer holds the one lock there is: it is free, or this raises.
    async with database.begin() as session:
        await session.execute(text("DELETE FROM tags WHERE 1 = 0"))
    return 0


async def connections(server: Server) -> int:
    """How many HTTP connections the kernel has on the server's side."""
    port = f":{server.port:04X}"
    states = [
        line.split()[3] for line in _tcp(server.process.pid) if line.split()[1].endswith(port)
    ]
    return len([state for state in states if state not in {_LISTEN, _TIME_WAIT}])


def _tcp(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]


async def settled(count: Callable[[], Awaitable[int]]) -> int:
    """A number once it is 0, or has not been for long."""
    end = time.monotonic() + SETTLED_SECONDS
    while (found := await count()) and time.monotonic() < end:  # noqa: ASYNC110 no event for it
        await asyncio.sleep(_LOOK_SECONDS)
    return found


async def everybody_writes(server: Server, person: Person) -> list[int]:
    """More writers at once than there are connections to the database."""

    async def write(http: Any) -> int:
        body = {"title": "Still here", "content": "…"}
        response = await http.post(f"{API}/posts", json=body, headers=person.headers)
        return int(response.status_code)

    async with http_to(server.url, timeout=30) as http:
        return list(await asyncio.gather(*(write(http) for _ in range(3 * POOL))))


async def test_who_hangs_up_leaves_nothing_open(
    world: World, client: Client, report: Report, seed: int, whole: bool
) -> None:
    """No transaction, no lock, no connection, no half of a write; the server goes on."""
    drops = 500 if whole else 120
    random, database = Random(seed), world.database
    person = await new_user(client)
    contested = (await person.write("Contested", content="y" * 50_000))["id"]
    for each in range(30):
        await person.write(f"Long {each}", content="z" * 50_000)
    async with world.server() as (server, took):
        assert await everybody_writes(server, person) == [201] * 3 * POOL
        dropper = Dropper(server, person, contested, random)
        for done in range(0, drops, AT_ONCE):
            await asyncio.gather(*(dropper.drop() for _ in range(AT_ONCE)))
            report.progress(f"drop {done + AT_ONCE}/{drops}")
        transactions = await settled(lambda: open_transactions(database))
        sockets = await settled(lambda: connections(server))
        statuses = await everybody_writes(server, person)
        complaints = [line for line in server.log if line["level"] in {"ERROR", "CRITICAL"}]
    wrong = await half_rows(database)
    report.row(
        database=database.dialect,
        faults=dropper.dropped.total(),
        requests=dropper.dropped.total() + len(statuses),
        acknowledged=statuses.count(201),
        lost=transactions + sockets + len(wrong),
        recovery=took,
    )
    assert set(dropper.dropped) == {"in_head", "in_body", "waiting", "reading"}
    assert (transactions, sockets) == (0, 0)
    assert statuses == [201] * 3 * POOL
    assert wrong == []
    assert complaints == []
