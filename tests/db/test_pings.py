"""Dead connections are replaced before use, or the work done on them is repeated."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from typing import Any

import pytest
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool

from app.db.engine import Database
from app.db.pings import ping_before_use, unpinged
from app.db.write_counters import WriteKind, Written


@pytest.fixture
async def engine() -> AsyncIterator[AsyncEngine]:
    pinged_engine = create_async_engine("sqlite+aiosqlite://", poolclass=AsyncAdaptedQueuePool)
    ping_before_use(pinged_engine)
    yield pinged_engine
    await pinged_engine.dispose()


@pytest.fixture
def gone(engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What was pinged; each ping finds that the connection is gone."""
    pinged: list[Any] = []

    def do_ping(connection: Any) -> bool:
        pinged.append(connection)
        raise sqlite3.OperationalError("gone")

    dialect = engine.sync_engine.dialect
    monkeypatch.setattr(dialect, "do_ping", do_ping)
    monkeypatch.setattr(dialect, "is_disconnect", lambda error, *_: "gone" in str(error))
    return pinged


async def used(engine: AsyncEngine) -> Any:
    async with engine.connect() as connection:
        await connection.execute(text("SELECT 1"))
        return (await connection.get_raw_connection()).driver_connection


async def test_a_connection_that_is_gone_is_replaced(engine: AsyncEngine, gone: list[Any]) -> None:
    first = await used(engine)
    assert not gone, "a new one is not asked"
    assert await used(engine) is not first
    assert len(gone) == 1


async def test_an_unpinged_connection_is_taken_as_it_is(
    engine: AsyncEngine, gone: list[Any]
) -> None:
    first = await used(engine)
    with unpinged():
        assert await used(engine) is first
    assert not gone


async def test_a_ping_that_fails_for_another_reason_is_an_error(
    engine: AsyncEngine, gone: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    await used(engine)
    monkeypatch.setattr(engine.sync_engine.dialect, "is_disconnect", lambda *_: False)
    with pytest.raises(OperationalError):
        await used(engine)
    assert len(gone) == 1


# --- Short transactions ------------------------------------------------------------------------


def lost(statement: str | None) -> DBAPIError:
    return OperationalError(statement, None, Exception("gone"), connection_invalidated=True)


async def attempts(engine: AsyncEngine, *errors: Exception) -> tuple[int, set[Written]]:
    """How often a transaction was begun that met these errors, and what it has written."""
    database, waiting = Database(engine, engine, engine), [*errors]
    calls: list[set[Written]] = []

    def work(_: Connection, written: set[Written]) -> int:
        calls.append(set(written))
        written.add(("posts", WriteKind.insert))
        if waiting:
            raise waiting.pop(0)
        return len(calls)

    return await database.transact(work), calls[-1]


async def test_what_lost_its_connection_is_done_again_once(engine: AsyncEngine) -> None:
    assert await attempts(engine, lost("SELECT 1")) == (2, set())
    with pytest.raises(OperationalError):
        await attempts(engine, lost("SELECT 1"), lost("SELECT 1"))


async def test_a_commit_whose_answer_is_lost_is_not_done_again(engine: AsyncEngine) -> None:
    with pytest.raises(OperationalError):
        await attempts(engine, lost(None))


async def test_other_errors_are_not_met_again(engine: AsyncEngine) -> None:
    refused = OperationalError("SELECT 1", None, Exception("no such table"))
    with pytest.raises(OperationalError):
        await attempts(engine, refused)
