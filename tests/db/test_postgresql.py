"""Cancelled PostgreSQL statements: what the driver waits for, and how long."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from psycopg import AsyncConnection
from psycopg.errors import QueryCanceled, SyntaxError
from psycopg.pq import ConnStatus, TransactionStatus
from psycopg.waiting import Wait

from app.db import postgresql
from app.db.failures import described
from app.db.postgresql import Connection


class Wire:
    """What the driver holds of a connection: a socket, whose other end the test has."""

    def __init__(self) -> None:
        self.ours, self.theirs = socket.socketpair()
        self.theirs.setblocking(False)
        self.transaction_status = TransactionStatus.ACTIVE
        self.status = ConnStatus.OK
        self.finishes = 0

    @property
    def socket(self) -> int:
        return self.ours.fileno()

    def finish(self) -> None:
        self.finishes += 1
        self.status = ConnStatus.BAD
        self.ours.close()


def statement(connection: Connection, outcome: Exception | None = None) -> Iterator[Any]:
    """A statement that ends when the server says something."""
    yield Wait.R
    wire: Any = connection.pgconn
    wire.transaction_status = TransactionStatus.INTRANS
    if outcome is not None:
        raise outcome


@pytest.fixture
def wire() -> Iterator[Wire]:
    opened = Wire()
    yield opened
    opened.finish()
    opened.theirs.close()


@pytest.fixture
def connection(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> Connection:
    """A connection whose server ends a statement as soon as it is asked to."""

    async def cancel_safe(_: Connection, *, timeout: float) -> None:  # noqa: ASYNC109 the driver's
        assert timeout == postgresql.CANCEL_SECONDS
        wire.theirs.send(b"!")

    monkeypatch.setattr(AsyncConnection, "cancel_safe", cancel_safe)
    monkeypatch.setattr(postgresql, "CANCEL_SECONDS", 0.2)
    opened = Connection(wire)  # type: ignore[arg-type]  # as much of it as is used
    opened.turns = asyncio.Semaphore(1)
    return opened


async def cancelled(connection: Connection, gen: Iterator[Any], *, times: int = 1) -> None:
    waiting = asyncio.create_task(connection.wait(gen))
    await asyncio.sleep(0.01)
    for _ in range(times):
        waiting.cancel()
        await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError):
        async with asyncio.timeout(2):
            await waiting


async def test_a_statement_that_ends_by_itself_is_left_to(
    connection: Connection, wire: Wire
) -> None:
    waiting = asyncio.create_task(connection.wait(statement(connection)))
    wire.theirs.send(b"!")
    await waiting
    await connection.close()
    assert wire.finishes == 1


@pytest.mark.parametrize("times", [1, 2, 3])
async def test_a_cancelled_statement_is_ended_and_its_connection_seen_to_close(
    connection: Connection, wire: Wire, times: int
) -> None:
    """However often the task is cancelled."""
    await cancelled(connection, statement(connection, QueryCanceled()), times=times)
    assert wire.finishes == 0
    closing = asyncio.create_task(connection.close())
    await asyncio.sleep(0.05)
    assert wire.finishes == 1
    assert not closing.done(), "the server has not hung up"
    wire.theirs.send(b"good-bye")
    wire.theirs.close()
    async with asyncio.timeout(0.1):
        await closing
    await connection.close()
    assert wire.finishes == 1


async def test_one_that_had_ended_before_it_was_cancelled_is_left_to(
    connection: Connection, wire: Wire
) -> None:
    wire.transaction_status = TransactionStatus.INTRANS
    await cancelled(connection, statement(connection))
    await connection.close()
    assert wire.finishes == 1


@pytest.mark.parametrize("outcome", [None, SyntaxError()])
async def test_one_that_came_to_another_end_meanwhile_has_ended(
    connection: Connection, wire: Wire, outcome: Exception | None
) -> None:
    await cancelled(connection, statement(connection, outcome))
    assert wire.finishes == 0


async def test_a_server_that_says_nothing_is_given_up(
    connection: Connection, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def silence(*_: object, **__: object) -> None:
        await asyncio.sleep(60)

    monkeypatch.setattr(AsyncConnection, "cancel_safe", silence)
    await cancelled(connection, statement(connection))
    assert wire.finishes == 1
    await connection.close()


async def test_a_server_that_does_not_hang_up_is_not_waited_for(
    connection: Connection, wire: Wire
) -> None:
    await cancelled(connection, statement(connection, QueryCanceled()))
    async with asyncio.timeout(2):
        await connection.close()
    assert wire.finishes == 1


async def test_only_some_are_cancelled_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A flood of requests to cancel would make a process in the server for each."""
    opened: list[Connection] = []
    under_way = most = 0

    async def connect(_: type[Connection], /, *arguments: str, **options: int) -> Connection:
        given = {"connect_timeout": 3, "client_encoding": "utf8"}
        assert (arguments, options) == (("host=here",), given)
        opened.append(Connection(Wire()))  # type: ignore[arg-type]  # as much of it as is used
        return opened[-1]

    async def set_up(*_: object) -> None:
        """Nothing answers here."""

    async def cancel_safe(self: Connection, **_: float) -> None:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0.01)
        under_way -= 1
        wire: Any = self.pgconn
        wire.theirs.send(b"!")

    monkeypatch.setattr(AsyncConnection, "connect", classmethod(connect))
    monkeypatch.setattr(AsyncConnection, "cancel_safe", cancel_safe)
    monkeypatch.setattr(postgresql.Opener, "_set_up", set_up)
    opener = postgresql.Opener({})
    for _ in range(12):
        await opener("host=here", connect_timeout=3)
    await asyncio.gather(*(cancelled(each, statement(each, QueryCanceled())) for each in opened))
    assert most == postgresql._AT_ONCE
    for each in opened:
        wire: Any = each.pgconn
        wire.theirs.close()
        await each.close()


async def test_the_place_of_an_error_is_not_that_of_the_driver(
    connection: Connection, wire: Wire
) -> None:
    """Logs name who has sent a statement, not what every statement passes through."""
    wire.theirs.send(b"!")
    with pytest.raises(SyntaxError) as caught:
        await connection.wait(statement(connection, SyntaxError()))
    assert described(caught.value)["where"] == ""


@pytest.mark.parametrize("act", ["commit", "rollback"])
@pytest.mark.parametrize("is_pooled", [True, False])
async def test_behind_a_pooler_the_end_of_a_transaction_is_waited_for_not_cancelled(
    connection: Connection, wire: Wire, monkeypatch: pytest.MonkeyPatch, act: str, is_pooled: bool
) -> None:
    """The pooler may give the session to another client as soon as the transaction has ended."""
    asked: list[str] = []

    async def cancel_safe(*_: object, **__: object) -> None:
        asked.append(act)

    async def end(self: Connection) -> None:
        await self.wait(statement(connection))

    monkeypatch.setattr(AsyncConnection, "cancel_safe", cancel_safe)
    monkeypatch.setattr(AsyncConnection, act, end)
    connection.is_pooled = is_pooled
    ending = asyncio.create_task(getattr(connection, act)())
    await asyncio.sleep(0.01)
    ending.cancel()
    await asyncio.sleep(0.01)
    wire.theirs.send(b"!")
    with pytest.raises(asyncio.CancelledError):
        await ending
    assert asked == ([] if is_pooled else [act])
