"""Lost MariaDB connections as uvloop reports them; the loop of the other tests hides that."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import uvloop
from aiomysql import Connection as Driver
from aiomysql import OperationalError
from pymysql.constants import COMMAND
from pymysql.constants.CR import CR_SERVER_LOST
from sqlalchemy import text
from sqlalchemy.engine import make_url

from app.db import mariadb
from app.db.engine import Database, connect
from tests.conftest import make_settings
from tests.support.proxy import proxy_for

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
AT_ONCE = 4


async def in_uvloop(work: Callable[[], Awaitable[None]]) -> None:
    """Run it as the server is run, in a thread with an event loop of its own."""

    async def run() -> None:
        async with asyncio.timeout(30):
            await work()

    await asyncio.to_thread(uvloop.run, run())


async def ask(database: Database) -> None:
    async with database.begin() as session:
        assert await session.scalar(text("SELECT 1")) == 1
        await asyncio.sleep(0.01)  # while the others take a connection too


@pytest.mark.parametrize("database_url", ["mariadb"], indirect=True)
async def test_connections_of_the_pool_that_were_reset_are_replaced(
    database_url: str, tmp_path: Path
) -> None:
    """A3: nobody meets them, however many there were."""

    async def work() -> None:
        async with proxy_for(make_url(database_url)) as proxy:
            database = connect(make_settings(proxy.url, tmp_path, database_pool_size=AT_ONCE))
            try:
                for _ in range(3):
                    await asyncio.gather(*(ask(database) for _ in range(AT_ONCE)))
                    cut = proxy.cut_off
                    proxy.reset()
                    assert proxy.cut_off - cut == AT_ONCE
                    await asyncio.sleep(0.05)  # until the transports know
                await asyncio.gather(*(ask(database) for _ in range(AT_ONCE)))
            finally:
                await database.dispose()

    await in_uvloop(work)


async def test_whatever_is_said_to_who_has_hung_up_is_a_lost_connection(frozen_port: int) -> None:
    async def work() -> None:
        _, writer = await asyncio.open_connection("127.0.0.1", frozen_port)
        connection = mariadb.Connection(host="127.0.0.1", port=frozen_port)
        connection._writer = writer
        connection._write_bytes(b"while the peer is there")
        writer.transport.abort()
        await asyncio.sleep(0.05)  # until the transport knows
        with pytest.raises(OperationalError) as lost:
            connection._write_bytes(b"and then")
        assert lost.value.args[0] == CR_SERVER_LOST
        await connection.ensure_closed()
        assert connection.closed

    await in_uvloop(work)


async def test_who_hangs_up_at_once_is_a_lost_connection(
    frozen_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A3, A10: after the connection was opened, and before anything was read."""

    async def opened_too_late(host: str, port: int) -> Streams:
        streams = await asyncio.open_connection(host, port)
        streams[1].transport.abort()
        await asyncio.sleep(0.05)
        return streams

    monkeypatch.setattr("aiomysql.connection._open_connection", opened_too_late)

    async def work() -> None:
        with pytest.raises(OperationalError) as lost:
            await mariadb.Opener()(host="127.0.0.1", port=frozen_port)
        assert lost.value.args[0] == CR_SERVER_LOST

    await in_uvloop(work)


async def test_a_transaction_that_has_ended_is_not_rolled_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said: list[str] = []

    async def say(_: Driver, __: int, sql: str) -> None:
        said.append(sql)

    async def is_well(_: Driver) -> None:
        pass

    monkeypatch.setattr(Driver, "_execute_command", say)
    monkeypatch.setattr(Driver, "_read_ok_packet", is_well)
    connection = mariadb.Connection()
    await connection.rollback()  # another task may have used it
    await connection.rollback()
    await connection._execute_command(COMMAND.COM_QUERY, "SELECT 1")
    await connection.rollback()
    await connection._execute_command(COMMAND.COM_QUERY, "SELECT 2")
    await connection.commit()
    await connection.rollback()
    assert said == ["ROLLBACK", "SELECT 1", "ROLLBACK", "SELECT 2", "COMMIT"]
