"""Queries on SQLite: run in the event loop, or in a thread when they take long."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from pathlib import Path

import pytest
from sqlalchemy import Integer, bindparam, column, func, insert, select, table
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import aliased

from app.crud import post_listing
from app.db import queries
from app.db.engine import Database
from app.db.queries import PreparedQuery, SqliteQueryRunner, open_query_runner
from app.models.tags import Tag
from tests.support.apps import client_of
from tests.support.client import Client
from tests.support.listings import fill, page

on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
NOWHERE = PreparedQuery(select(column("id")).select_from(table("nowhere")))


def slow_query(limit: str = "limit") -> PreparedQuery:
    """Pairs and pairs of tags: with some of them, a matter of seconds."""
    a, b, c = aliased(Tag), aliased(Tag), aliased(Tag)
    counting = select(func.count()).select_from(a).join(b, a.id <= b.id + 1_000_000)
    return PreparedQuery(
        counting.join(c, c.id != b.id).where(c.id <= bindparam(limit, type_=Integer)),
        include_deleted=True,
    )


async def make_tags(database: Database, number: int) -> int:
    """So many tags; the highest id."""
    async with database.begin() as session:
        await session.execute(insert(Tag), [{"name": f"tag {n}"} for n in range(number)])
        return await session.scalar(select(func.max(Tag.id))) or 0


@on_sqlite
async def test_a_query_that_takes_long_answers_the_same_beside_the_event_loop(
    client: Client, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is interrupted, done in a thread, and from then on done there without being tried."""
    highest = await make_tags(database, 60)
    in_loop: list[str] = []
    query, given = slow_query(), {"limit": highest}
    for seconds in (60.0, 0.0, 0.0):
        monkeypatch.setattr(queries, "LOOP_SECONDS", seconds)
        reader = open_query_runner(database)
        assert isinstance(reader, SqliteQueryRunner)
        opened = reader._opened()
        opened.set_trace_callback(in_loop.append)
        in_loop.clear()
        for _ in range(3):
            assert list(await reader.rows(query, given)) == [(60 * 60 * 59,)]
        assert len(in_loop) == (3 if seconds else 1)
        assert list(await reader.rows(slow_query(), {"limit": highest - 59})) == [(60 * 59,)]
        await reader.dispose()
    assert (await client.get("/tags")).status_code == 200


@on_sqlite
async def test_a_search_that_never_ends_is_a_503(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on servers, which end statements by themselves."""
    monkeypatch.setattr(queries, "LOOP_SECONDS", 0.0)
    monkeypatch.setattr(queries, "STATEMENT_SECONDS", 0.0)
    ana = await client.user()
    await fill(ana, 400)
    answer = await client.get("/posts", params={"q": "never"})
    assert (answer.status_code, answer.json()["code"]) == (503, "service_unavailable")
    monkeypatch.undo()
    assert (await page(client, "/posts", q="never"))["total"] == 0


@on_sqlite
async def test_a_search_ends_with_its_request(
    client: Client, database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long it would take: no thread goes on for nobody."""
    monkeypatch.setattr(queries, "LOOP_SECONDS", 0.0)
    highest = await make_tags(database, 1_500)
    async with client_of(client, tmp_path, request_timeout_seconds=0.5) as own:
        reader = own.app.state.query_runner

        @own.app.get("/endless")
        async def endless() -> None:
            await reader.rows(slow_query(), {"limit": highest})

        answer = await own.http.get("/endless")
        assert (answer.status_code, answer.json()["code"]) == (503, "service_unavailable")
        async with asyncio.timeout(2):
            await asyncio.to_thread(reader._threads[False].shutdown)


@on_sqlite
async def test_an_error_in_the_thread_is_what_a_session_raises(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a query that was slow before and is wrong now."""
    monkeypatch.setattr(queries, "LOOP_SECONDS", 0.0)
    passing = table("passing", column("n", Integer))
    a, b = passing.alias("a"), passing.alias("b")
    query = PreparedQuery(select(func.count()).select_from(a.join(b, a.c.n != b.c.n)))
    reader = open_query_runner(database)
    async with database.engine.begin() as connection:
        await connection.exec_driver_sql("CREATE TABLE passing (n INTEGER)")
        rows = [(number,) for number in range(100)]
        await connection.exec_driver_sql("INSERT INTO passing VALUES (?)", rows)
    try:
        assert list(await reader.rows(query, {})) == [(9_900,)]
    finally:
        async with database.engine.begin() as connection:
            await connection.exec_driver_sql("DROP TABLE passing")
    with pytest.raises(DBAPIError, match="no such table"):
        await reader.rows(query, {})
    await reader.dispose()


@on_sqlite
async def test_after_a_while_it_is_tried_again(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may have been slow but once."""
    monkeypatch.setattr(queries, "SLOW_SECONDS", 0.0)
    highest = await make_tags(database, 40)
    query, given = slow_query(), {"limit": highest}
    reader = open_query_runner(database)
    assert isinstance(reader, SqliteQueryRunner)
    in_loop: list[str] = []
    reader._opened().set_trace_callback(in_loop.append)
    for seconds in (0.0, 60.0):
        monkeypatch.setattr(queries, "LOOP_SECONDS", seconds)
        assert list(await reader.rows(query, given)) == [(40 * 40 * 39,)]
    assert len(in_loop) == 2
    await reader.dispose()


@on_sqlite
async def test_a_slow_query_does_not_hold_up_the_event_loop(database: Database) -> None:
    highest = await make_tags(database, 250)
    reader = open_query_runner(database)
    started, longest = time.perf_counter(), 0.0
    asking = asyncio.ensure_future(reader.rows(slow_query(), {"limit": highest}))
    while not asking.done():
        before = time.perf_counter()
        await asyncio.sleep(0.001)
        longest = max(longest, time.perf_counter() - before)
    assert list(await asking) == [(250 * 250 * 249,)]
    assert longest < (time.perf_counter() - started) / 2
    await reader.dispose()


@on_sqlite
async def test_a_reader_on_sqlite_cannot_write(database: Database) -> None:
    reader = open_query_runner(database)
    assert isinstance(reader, SqliteQueryRunner)
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        reader._opened().execute("DELETE FROM users")
    await reader.dispose()
    await reader.dispose()


@on_sqlite
async def test_which_queries_are_slow_is_not_remembered_without_end(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queries, "LOOP_SECONDS", 0.0)
    monkeypatch.setattr(queries, "SLOW_SECONDS", 0.0)
    monkeypatch.setattr(queries, "_MAX_SLOW", 3)
    await fill(await client.user(), 300)
    reader: SqliteQueryRunner = client.app.state.query_runner
    for number in range(6):
        post_listing._listing.cache_clear()
        await page(client, "/posts", q=f"x{number}")
        assert len(reader._slow) <= 3
    assert reader._slow
