"""Cancelled MariaDB connections are killed through another connection, in bounded time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiomysql import Connection as Driver
from aiomysql import OperationalError
from pymysql.constants.CR import CR_SERVER_LOST
from pymysql.constants.ER import CON_COUNT_ERROR, KILL_DENIED_ERROR, NO_SUCH_THREAD

from app.db import mariadb
from app.db.engine import connect
from tests.conftest import make_settings

NEVER = 10**9


class Server:
    """A server that the driver believes to talk to. `lasting` says of its threads how often each
    is killed before it is gone; `refuses` and `name` are read at each connect."""

    def __init__(self) -> None:
        self.name = "a"
        self.refuses: list[Exception] = []
        self.answers: Callable[[str], None] = lambda _: None
        self.lasting: dict[int, int] = {}
        self.said: list[str] = []
        self.opened: list[Driver] = []
        self.open_at_once = 0

    async def connect(self, connection: Driver) -> None:
        await asyncio.sleep(0)
        if self.refuses:
            raise self.refuses.pop(0)
        connection._writer = FakeWriter()
        connection._reader = self.name
        connection.server_thread_id = (len(self.opened) + 1,)
        self.lasting[len(self.opened) + 1] = 1
        self.opened.append(connection)
        self.open_at_once = max(self.open_at_once, sum(not each.closed for each in self.opened))

    def execute(self, sql: str) -> None:
        self.said.append(sql)
        self.answers(sql)
        if sql.startswith("KILL "):
            number = int(sql.removeprefix("KILL "))
            if self.lasting.get(number, 0) <= 0:
                raise OperationalError(NO_SUCH_THREAD, "Unknown thread id")
            self.lasting[number] -= 1

    def killed(self) -> set[int]:
        return {int(each.removeprefix("KILL ")) for each in self.said if each.startswith("KILL ")}


class FakeWriter:
    """The stream that a driver writes to."""

    def __init__(self) -> None:
        self.transport = self
        self.written = b""

    def write(self, data: bytes) -> None:
        self.written += data

    async def drain(self) -> None:
        await asyncio.sleep(0)

    def close(self) -> None:
        self.written += b" closed"


class Cursor:
    def __init__(self, server: Server, connection: Driver) -> None:
        self._server = server
        self._connection = connection

    async def __aenter__(self) -> Cursor:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def execute(self, sql: str) -> None:
        await asyncio.sleep(0)
        self._server.execute(sql)

    async def fetchall(self) -> list[tuple[str, str]]:
        return [("port", "3306"), ("hostname", self._connection._reader)]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    fake = Server()

    async def connect(connection: Driver) -> None:
        await fake.connect(connection)

    monkeypatch.setattr(Driver, "_connect", connect)
    monkeypatch.setattr(Driver, "cursor", lambda self: Cursor(fake, self))
    return fake


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mariadb, "KILL_SECONDS", 0.3)
    monkeypatch.setattr(mariadb, "_LOOK_SECONDS", 0.001)
    monkeypatch.setattr(mariadb, "_RETRY_SECONDS", 0.01)


async def cancelled(opener: mariadb.Opener) -> mariadb.Connection:
    """A connection whose task was cancelled while its statement was under way."""
    connection = await opener(host="127.0.0.1", user="ana")
    connection._close_on_cancel()
    assert connection.closed
    return connection


async def seconds_of(work: Awaitable[Any]) -> float:
    loop = asyncio.get_running_loop()
    started = loop.time()
    await work
    return loop.time() - started


async def test_a_connection_that_is_closed_in_peace_is_killed_by_nobody(server: Server) -> None:
    opener = mariadb.Opener()
    connection = await opener(host="127.0.0.1", user="ana")
    assert connection.user == "ana"
    await connection.ensure_closed()
    await opener.dispose()
    assert connection.closed
    assert server.killed() == set()
    assert len(server.opened) == 1


async def test_a_cancelled_connection_is_closed_when_the_server_has_dropped_it(
    server: Server,
) -> None:
    opener = mariadb.Opener()
    connection = await cancelled(opener)
    server.lasting[1] = 5
    await connection.ensure_closed()
    assert server.lasting[1] == 0
    await connection.ensure_closed()
    await opener.dispose()
    assert server.killed() == {1}
    assert [each.closed for each in server.opened] == [True, True]


async def test_many_are_killed_over_one_connection(server: Server) -> None:
    """Also those that are cancelled while it is at work."""
    opener = mariadb.Opener()
    left = [await cancelled(opener) for _ in range(20)]
    server.lasting[1] = 10
    server.open_at_once = 0
    first = [asyncio.create_task(each.ensure_closed()) for each in left[:10]]
    await asyncio.sleep(0.002)
    await asyncio.gather(*(each.ensure_closed() for each in left[10:]), *first)
    await opener.dispose()
    assert server.killed() == {*range(1, 21)}
    assert len(server.opened) <= 22, "a second one only if the first had just done its work"
    assert server.open_at_once == 1


async def test_one_that_the_server_does_not_let_go_is_given_up(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    """And keeps no other from being killed."""
    opener = mariadb.Opener()
    stuck, other = await cancelled(opener), await cancelled(opener)
    server.lasting[1] = NEVER
    times = await asyncio.gather(*(seconds_of(each.ensure_closed()) for each in (stuck, other)))
    assert times[1] < times[0] < 2
    assert [record.getMessage() for record in caplog.records] == ["statement left to the server"]
    await opener.dispose()
    await opener.dispose()


async def test_a_kill_that_is_denied_keeps_no_other_from_its_own(server: Server) -> None:
    def deny(sql: str) -> None:
        if sql == "KILL 1":
            raise OperationalError(KILL_DENIED_ERROR, "You are not owner of thread 1")

    opener, server.answers = mariadb.Opener(), deny
    denied, other = await cancelled(opener), await cancelled(opener)
    await asyncio.gather(denied.ensure_closed(), other.ensure_closed())
    assert server.lasting[2] == 0
    await opener.dispose()


@pytest.mark.parametrize("error", [OperationalError(CON_COUNT_ERROR, "full"), OSError("away")])
async def test_a_server_that_is_full_or_away_is_asked_again(
    server: Server, error: Exception
) -> None:
    opener = mariadb.Opener()
    connection = await cancelled(opener)
    server.refuses = [error] * 3
    await connection.ensure_closed()
    assert server.refuses == []
    assert server.lasting[1] == 0
    await opener.dispose()


async def test_a_connection_that_is_lost_while_it_kills_is_replaced(server: Server) -> None:
    losses = [True]

    def lose(sql: str) -> None:
        if sql == "KILL 1" and losses:
            losses.pop()
            server.opened[-1].close()
            raise OperationalError(CR_SERVER_LOST, "gone")

    opener, server.answers = mariadb.Opener(), lose
    await (await cancelled(opener)).ensure_closed()
    assert len(server.opened) == 3
    assert server.lasting[1] == 0
    await opener.dispose()


async def test_another_server_behind_the_same_address_is_left_alone(server: Server) -> None:
    """A thread there with the same number belongs to another client."""
    opener = mariadb.Opener()
    connection = await cancelled(opener)
    server.name = "b"
    closing = asyncio.create_task(connection.ensure_closed())
    while len(server.opened) < 4:  # noqa: ASYNC110 nothing tells
        await asyncio.sleep(0.001)
    assert server.killed() == set()
    assert server.open_at_once == 1
    server.name = "a"
    await closing
    assert server.killed() == {1}
    await opener.dispose()


async def test_a_connection_that_tells_nothing_of_its_server_is_none(server: Server) -> None:
    def fail(_: str) -> None:
        raise OperationalError(CR_SERVER_LOST, "gone")

    server.answers = fail
    with pytest.raises(OperationalError):
        await mariadb.Opener()(host="127.0.0.1", user="ana")
    assert [each.closed for each in server.opened] == [True]


async def test_nobody_waits_for_a_kill_when_the_app_ends(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mariadb, "KILL_SECONDS", 60)
    opener = mariadb.Opener()
    connection = await cancelled(opener)
    server.lasting[1] = NEVER
    closing = asyncio.create_task(connection.ensure_closed())
    await asyncio.sleep(0.05)
    async with asyncio.timeout(2):
        await opener.dispose()
        await closing
    assert all(each.closed for each in server.opened)


async def test_the_killer_of_an_app_stops_with_its_pools(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disposed: list[mariadb.Opener] = []

    async def dispose(self: mariadb.Opener) -> None:
        disposed.append(self)

    monkeypatch.setattr(mariadb.Opener, "dispose", dispose)
    database = connect(make_settings("mysql+aiomysql://ana@127.0.0.1/x", tmp_path))
    await database.dispose()
    assert len(disposed) == 1
