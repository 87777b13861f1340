"""SQLite in the event loop: writers take turns, wait without blocking, and never hang."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import pytest
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import OperationalError

from app.db import sqlite
from app.db.engine import Database
from app.db.sqlite import Connection, Opener, open_raw
from tests.support.client import Client
from tests.support.concurrency import at_once, patient_app, statuses
from tests.support.faults import eventually
from tests.support.people import new_user
from tests.support.sqlite import on_sqlite, writing_elsewhere
from tests.support.tags import add_tag, number_of_tags


@pytest.fixture
async def opener(tmp_path: Path) -> Opener:
    return Opener(make_url(f"sqlite+aiosqlite:///{tmp_path}/turns.db"))


@pytest.fixture
async def opened(opener: Opener) -> AsyncIterator[list[Connection]]:
    """Four connections to one empty database, with a table."""
    found = [await opener() for _ in range(4)]
    await found[0].cursor().execute("CREATE TABLE t (n INTEGER PRIMARY KEY)")
    yield found
    for connection in found:
        await connection.close()


async def longest_pause(task: asyncio.Future[Any]) -> float:
    """For how long nothing else ran in the event loop, until a task was done."""
    longest = 0.0
    while not task.done():
        before = time.perf_counter()
        await asyncio.sleep(0.001)
        longest = max(longest, time.perf_counter() - before)
    return longest


# --- Opening -------------------------------------------------------------------------------------


@pytest.mark.parametrize("fails", [False, True])
async def test_what_was_opened_for_a_task_that_was_cancelled_is_closed(
    opener: Opener, monkeypatch: pytest.MonkeyPatch, *, fails: bool
) -> None:
    """The thread that opens it cannot be cancelled."""
    ended: list[sqlite3.Connection | None] = []
    let_through = threading.Event()

    def open_slowly(url: URL) -> sqlite3.Connection:
        let_through.wait(5)
        connection = None if fails else open_raw(url)
        ended.append(connection)
        if connection is None:
            raise sqlite3.OperationalError("unable to open database file")
        return connection

    monkeypatch.setattr(sqlite, "open_raw", open_slowly)
    opening = asyncio.create_task(opener())
    await asyncio.sleep(0)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    let_through.set()
    await eventually(lambda: len(ended) == 1)
    if ended[0] is not None:
        await eventually(partial(is_closed, ended[0]))


def is_closed(connection: sqlite3.Connection) -> bool:
    try:
        connection.total_changes  # noqa: B018 refused when it is closed
    except sqlite3.ProgrammingError:
        return True
    return False


# --- Turns ---------------------------------------------------------------------------------------


async def begin(connection: Connection) -> None:
    await connection.cursor().execute("BEGIN IMMEDIATE")


@on_sqlite
async def test_fifty_parallel_writes_all_succeed(
    client: Client, database_url: str, tmp_path: Path
) -> None:
    ana = await new_user(client)
    async with patient_app(database_url, tmp_path) as app:
        transport = httpx2.ASGITransport(app=app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://testserver") as http:
            writer = replace(ana, http=http, app=app)
            posts = [{"title": str(n), "content": "", "tags": ["shared"]} for n in range(50)]
            answers = await at_once(writer.post("/posts", post) for post in posts)
    assert statuses(answers) == {201: 50}


async def test_writers_take_turns_in_the_order_they_came(opened: list[Connection]) -> None:
    done: list[int] = []

    async def write(number: int) -> None:
        connection = opened[number]
        await begin(connection)
        await asyncio.sleep(0.01 * (4 - number))
        await connection.cursor().execute("INSERT INTO t VALUES (?)", (number,))
        done.append(number)
        await connection.commit()

    async with asyncio.timeout(3):
        await asyncio.gather(*map(write, range(4)))
    assert done == [0, 1, 2, 3]


@pytest.mark.parametrize("how", ["commit", "rollback", "close", "stop"])
async def test_whatever_ends_a_transaction_lets_the_next_one_write(
    opened: list[Connection], how: str
) -> None:
    first, second, *_ = opened
    await begin(first)
    await first.cursor().execute("INSERT INTO t VALUES (1)")
    waiting = asyncio.ensure_future(begin(second))
    await asyncio.sleep(0.02)
    assert not waiting.done()
    if how == "stop":
        first.stop()
    else:
        await getattr(first, how)()
    await asyncio.wait_for(waiting, 1)
    cursor = second.cursor()
    await cursor.execute("SELECT count(*) FROM t")
    assert await cursor.fetchall() == [(1 if how == "commit" else 0,)]
    await second.rollback()


async def test_a_writer_that_gives_up_waiting_takes_nobodys_turn(
    opened: list[Connection],
) -> None:
    first, second, third, _ = opened
    await begin(first)
    gone, waiting = (asyncio.ensure_future(begin(each)) for each in (second, third))
    await asyncio.sleep(0.01)
    gone.cancel()
    await asyncio.sleep(0.01)
    assert gone.cancelled()
    assert not waiting.done()
    await first.commit()
    await asyncio.wait_for(waiting, 1)
    await third.commit()
    await asyncio.wait_for(begin(second), 1)
    await second.rollback()


async def test_a_turn_that_does_not_come_is_a_locked_database(
    opened: list[Connection], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "LOCK_WAIT_SECONDS", 0.05)
    first, second, *_ = opened
    await begin(first)
    with pytest.raises(sqlite3.OperationalError, match="database is locked"):
        await begin(second)
    await first.commit()
    await asyncio.wait_for(begin(second), 1)
    await second.rollback()


async def test_a_transaction_that_cannot_begin_gives_its_turn_back(
    opened: list[Connection],
) -> None:
    first, second, *_ = opened
    await first.cursor().execute("BEGIN")
    with pytest.raises(sqlite3.OperationalError, match="within a transaction"):
        await begin(first)
    await first.cursor().execute("ROLLBACK")
    await asyncio.wait_for(begin(second), 1)
    await second.rollback()


async def test_a_commit_that_is_refused_keeps_the_turn_until_it_is_undone(
    opened: list[Connection],
) -> None:
    first, second, *_ = opened
    await first.cursor().execute(
        "CREATE TABLE child (n INTEGER REFERENCES t DEFERRABLE INITIALLY DEFERRED)"
    )
    await begin(first)
    await first.cursor().execute("INSERT INTO child VALUES (7)")
    waiting = asyncio.ensure_future(begin(second))
    with pytest.raises(sqlite3.IntegrityError):
        await first.commit()
    await asyncio.sleep(0.02)
    assert not waiting.done(), "it is still in its transaction"
    await first.rollback()
    await asyncio.wait_for(waiting, 1)
    await second.rollback()


# --- Other processes -----------------------------------------------------------------------------


@on_sqlite
async def test_a_writer_of_another_process_is_waited_for(client: Client, database_url: str) -> None:
    """The event loop is not blocked: readers notice nothing."""
    ana = await new_user(client)
    with writing_elsewhere(database_url) as other:
        writing = asyncio.ensure_future(ana.patch("/users/me", {"name": "Renamed"}))
        watching = asyncio.ensure_future(longest_pause(writing))
        for _ in range(10):
            assert (await ana.get("/users/me")).json()["name"] == ana.account["name"]
            await asyncio.sleep(0.02)
        assert not writing.done()
        other.execute("COMMIT")
        assert (await asyncio.wait_for(writing, 2)).json()["name"] == "Renamed"
    assert await watching < 0.5


@on_sqlite
async def test_another_process_that_goes_on_writing_is_a_locked_database(
    client: Client, database: Database, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ana = await new_user(client)
    monkeypatch.setattr(sqlite, "LOCK_WAIT_SECONDS", 0.05)
    with writing_elsewhere(database_url):
        with pytest.raises(OperationalError, match="database is locked"):
            await add_tag(database, "never")
        answer = await ana.patch("/users/me", {"name": "Never"})
        assert (answer.status_code, answer.json()["code"]) == (503, "service_unavailable")
    assert (await ana.patch("/users/me", {"name": "Now"})).status_code == 200
    assert await number_of_tags(database) == 0


# --- Files that are no database ----------------------------------------------------------------


def test_why_a_file_cannot_be_the_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "there.db").touch()

    def why(name: str) -> str | None:
        return sqlite.why_unusable(URL.create("sqlite", database=str(tmp_path / name)))

    assert (why("there.db"), why("new.db")) == (None, None)
    assert why(".") == "is a folder"
    assert why("no/new.db") == f"there is no folder {tmp_path}/no"
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert why("there.db") == "this user may not write to it"
    assert why("new.db") == f"this user may not write to the folder {tmp_path}"
    assert sqlite.why_unusable(make_url("sqlite:///file:/no/x.db?uri=true")) is None
