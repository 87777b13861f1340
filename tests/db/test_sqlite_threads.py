"""SQLite in threads: COMMIT and long statements, and callers that are cancelled meanwhile."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert, select
from sqlalchemy.exc import IntegrityError

from app.db.engine import Database, connect
from app.models.tags import Tag
from tests.conftest import make_settings
from tests.support.client import Client
from tests.support.faults import checked_out, eventually
from tests.support.tags import add_tag, number_of_tags

on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


# --- COMMIT in a thread --------------------------------------------------------------------------


class Held(sqlite3.Connection):
    """Its COMMITs wait for the disk, until they are let through."""

    begun = threading.Event()
    through = threading.Event()

    def commit(self) -> None:
        self.begun.set()
        self.through.wait(5)
        super().commit()


@pytest.fixture
async def held(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Database]:
    """The database of the app, on connections that are slow to commit."""
    monkeypatch.setattr(sqlite3, "connect", partial(sqlite3.connect, factory=Held))
    Held.begun.clear()
    Held.through.clear()
    url = database.engine.url.render_as_string(hide_password=False)
    found = connect(make_settings(url, tmp_path, database_pool_size=2))
    yield found
    Held.through.set()
    await found.dispose()


@on_sqlite
async def test_a_commit_that_waits_for_the_disk_holds_up_nobody_else(
    client: Client, database: Database, held: Database
) -> None:
    writing = asyncio.ensure_future(add_tag(held, "slow"))
    await eventually(Held.begun.is_set)
    assert (await client.get("/posts")).status_code == 200
    assert await number_of_tags(database) == 0
    assert not writing.done()
    Held.through.set()
    await writing
    assert await number_of_tags(database) == 1


@on_sqlite
@pytest.mark.parametrize("times", [1, 2])
async def test_cancelling_during_a_commit_leaves_connection_and_turn_usable(
    held: Database, times: int
) -> None:
    """The cancellation is raised when the disk has answered: until then the connection is in
    use."""
    writing = asyncio.ensure_future(add_tag(held, "cancelled"))
    await eventually(Held.begun.is_set)
    for _ in range(times):
        writing.cancel()
        await asyncio.sleep(0.02)
    assert not writing.done()
    Held.through.set()
    with pytest.raises(asyncio.CancelledError):
        await writing
    assert checked_out(held) == 0
    before = await number_of_tags(held)
    async with asyncio.timeout(2):
        await asyncio.gather(*(add_tag(held, f"after {number}") for number in range(4)))
    assert await number_of_tags(held) == before + 4


# --- Statements ----------------------------------------------------------------------------------


@on_sqlite
async def test_many_rows_go_with_one_statement(database: Database) -> None:
    async with database.begin() as session:
        await session.execute(insert(Tag), [{"name": f"orm {number}"} for number in range(30)])
        connection = await session.connection()
        names = [(f"driver {number}",) for number in range(30)]
        found = await connection.exec_driver_sql("INSERT INTO tags (name) VALUES (?)", names)
        assert found.rowcount == 30
    assert await number_of_tags(database) == 60
    with pytest.raises(IntegrityError):
        async with database.begin() as session:
            await session.execute(insert(Tag), [{"name": "new"}, {"name": "orm 1"}])
    assert await number_of_tags(database) == 60


@on_sqlite
async def test_a_long_statement_runs_beside_the_event_loop(database: Database) -> None:
    """An UPDATE may touch any number of rows."""
    await add_tag(database, "before")
    writing, gate = await held_update(database)
    await asyncio.sleep(0.02)
    assert not writing.done(), "the loop goes on meanwhile"
    gate.set()
    await writing


@on_sqlite
async def test_cancelling_a_long_statement_waits_for_it_and_undoes_it(database: Database) -> None:
    """Nobody else may use its connection before."""
    await add_tag(database, "before")
    writing, gate = await held_update(database)
    writing.cancel()
    await asyncio.sleep(0.02)
    assert not writing.done()
    gate.set()
    with pytest.raises(asyncio.CancelledError):
        await writing
    async with asyncio.timeout(2):
        await add_tag(database, "after")
    async with database.begin(readonly=True) as session:
        assert set(await session.scalars(select(Tag.name))) == {"before", "after"}


@on_sqlite
@pytest.mark.parametrize("times", [1, 2])
async def test_cancelling_an_endless_statement_ends_it(database: Database, times: int) -> None:
    """It holds the turn to write, which others wait for."""
    began = threading.Event()

    async def change() -> None:
        async with database.engine.begin() as connection:
            driver: Any = (await connection.get_raw_connection()).driver_connection
            await driver.create_function("began", 0, began.set)
            await connection.exec_driver_sql("INSERT INTO tags (name) VALUES ('undone')")
            await connection.exec_driver_sql(
                "UPDATE tags SET name = name || coalesce(began(), (WITH RECURSIVE n(i) AS"
                " (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n))"
            )

    writing = asyncio.create_task(change())
    assert await asyncio.to_thread(began.wait, 10)
    for _ in range(times):
        writing.cancel()
        await asyncio.sleep(0.01)
    with pytest.raises(asyncio.CancelledError):
        async with asyncio.timeout(2):
            await writing
    async with asyncio.timeout(2):
        await add_tag(database, "after")
    async with database.begin(readonly=True) as session:
        assert [*await session.scalars(select(Tag.name))] == ["after"]


async def held_update(database: Database) -> tuple[asyncio.Future[None], threading.Event]:
    """A statement under way that ends when the event is set."""
    began, gate = threading.Event(), threading.Event()

    def hold() -> str:
        began.set()
        gate.wait(10)
        return "."

    async def change() -> None:
        async with database.engine.begin() as connection:
            driver: Any = (await connection.get_raw_connection()).driver_connection
            await driver.create_function("hold", 0, hold)
            await connection.exec_driver_sql("UPDATE tags SET name = name || hold()")

    writing = asyncio.ensure_future(change())
    assert await asyncio.to_thread(began.wait, 10)
    return writing, gate
