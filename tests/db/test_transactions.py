"""Short transactions: one function each; concurrent ones on SQLite share a COMMIT."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from sqlalchemy import Connection, select
from sqlalchemy.exc import IntegrityError, OperationalError

from app.core.exceptions import NotFound
from app.db import sqlite
from app.db.engine import Database
from app.db.queries import PreparedQuery
from app.db.transactions import (
    GroupCommitRunner,
    Transaction,
    TransactionRunner,
    open_transaction_runner,
)
from app.db.write_counters import WriteKind, Written
from app.models.tags import PostTag, Tag
from tests.support.client import Client
from tests.support.concurrency import at_once, statuses
from tests.support.faults import dump
from tests.support.people import new_user
from tests.support.sqlite import on_sqlite, writing_elsewhere

Work = Callable[[Transaction], Any]
_TAGS = PreparedQuery(select(Tag.name).order_by(Tag.name))


@pytest.fixture
async def writer(database: Database) -> AsyncIterator[TransactionRunner]:
    """What the app writes short transactions with, for itself."""
    found = open_transaction_runner(database)
    yield found
    await found.dispose()


@pytest.fixture
def commits(monkeypatch: pytest.MonkeyPatch) -> list[sqlite3.Connection]:
    """The transactions of writers that were committed."""
    found, original = [], sqlite.Connection.transaction

    @asynccontextmanager
    async def transaction(connection: sqlite.Connection) -> AsyncIterator[sqlite3.Connection]:
        async with original(connection) as raw:
            yield raw
        found.append(raw)

    monkeypatch.setattr(sqlite.Connection, "transaction", transaction)
    return found


def adding(name: str) -> Work:
    return lambda transaction: transaction.insert(Tag, name=name)


def failing(name: str, error: Exception) -> Work:
    def work(transaction: Transaction) -> None:
        transaction.insert(Tag, name=name)
        raise error

    return work


async def names(database: Database) -> list[str]:
    async with database.begin(readonly=True) as session:
        return [*await session.scalars(select(Tag.name).order_by(Tag.name))]


# --- Everywhere ----------------------------------------------------------------------------------


async def test_a_row_is_written_with_the_defaults_of_its_model(client: Client) -> None:
    """What a new post is answered with is what reading it finds."""
    ana = await new_user(client)
    for body in (
        {"title": "One", "content": "", "status": "published", "tags": ["b", "a"]},
        {"title": "Two", "content": "x" * 1_000},
    ):
        created = (await ana.post("/posts", body)).json()
        assert (await ana.get(f"/posts/{created['id']}")).json() == created


async def test_what_a_work_raises_undoes_it_and_nothing_else(
    writer: TransactionRunner, database: Database
) -> None:
    works = [adding("a"), failing("b", NotFound()), adding("c"), failing("d", KeyError("e"))]
    results = await asyncio.gather(*map(writer.run, works), return_exceptions=True)
    assert [type(each) for each in results] == [dict, NotFound, dict, KeyError]
    assert await names(database) == ["a", "c"]


@on_sqlite
async def test_works_are_done_again_for_one_that_fails_behind_what_it_wrote(
    writer: TransactionRunner, database: Database, commits: list[sqlite3.Connection]
) -> None:
    done: list[str] = []

    def counted(name: str, work: Work) -> Work:
        def count(transaction: Transaction) -> Any:
            done.append(name)
            return work(transaction)

        return count

    def refusing(_: Transaction) -> None:
        raise NotFound

    async def run(**works: Work) -> list[Any]:
        done.clear()
        tasks = [writer.run(counted(name, work)) for name, work in works.items()]
        return [type(each) for each in await asyncio.gather(*tasks, return_exceptions=True)]

    assert await run(a=adding("a"), b=refusing, c=adding("c")) == [dict, NotFound, dict]
    assert done == ["a", "b", "c"]
    late = failing("x", NotFound())
    results = await run(d=adding("d"), e=late, f=late, g=refusing, h=adding("h"))
    assert results == [dict, NotFound, NotFound, NotFound, dict]
    assert done == ["d", "e", "d", "f", "g", "h"]
    assert await names(database) == ["a", "c", "d", "h"]
    assert len(commits) == 2


async def test_a_taken_key_is_told_as_everywhere(
    writer: TransactionRunner, database: Database
) -> None:
    await writer.run(adding("a"))
    with pytest.raises(IntegrityError):
        await writer.run(adding("a"))

    def work(transaction: Transaction) -> Any:
        transaction.insert_if_missing(Tag, name="a")
        transaction.insert_if_missing(Tag, name="b")
        return transaction.rows(_TAGS)

    assert await writer.run(work) == [("a",), ("b",)]
    assert await names(database) == ["a", "b"]


async def test_a_work_needs_no_writer_of_its_databases_own(database: Database) -> None:
    """What servers have serves SQLite as well: one transaction each."""
    writer = open_transaction_runner(Database(database.engine, database.reading, database.probing))
    assert type(writer) is TransactionRunner
    await writer.run(adding("a"))
    with pytest.raises(NotFound):
        await writer.run(failing("b", NotFound()))
    assert await names(database) == ["a"]
    await writer.dispose()


async def test_a_reference_to_nothing_is_refused(writer: TransactionRunner) -> None:
    with pytest.raises(IntegrityError):
        await writer.run(lambda transaction: transaction.insert(PostTag, post_id=1, tag_id=1))


async def test_what_was_written_is_counted(writer: TransactionRunner, database: Database) -> None:
    before = database.write_counters.count_of(("tags", WriteKind.insert))
    await writer.run(adding("a"))
    assert database.write_counters.count_of(("tags", WriteKind.insert)) == before + 1


async def test_who_was_cancelled_commits_nothing(database: Database) -> None:
    """Also where a library swallowed the cancellation, as it may on servers."""

    def work(connection: Connection, written: set[Written]) -> None:
        Transaction(connection.dialect, connection.exec_driver_sql, written).insert(
            Tag, name="never"
        )
        task = asyncio.current_task()
        assert task is not None
        task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await asyncio.create_task(database.transact(work))
    assert await names(database) == []


# --- Together, on SQLite -------------------------------------------------------------------------


@on_sqlite
async def test_posts_of_one_moment_share_commits(
    client: Client, commits: list[sqlite3.Connection]
) -> None:
    ana = await new_user(client)
    answers = await at_once(
        [ana.post("/posts", {"title": f"Post {number}", "content": ""}) for number in range(50)]
    )
    assert statuses(answers) == {201: 50}
    assert len({answer.json()["id"] for answer in answers}) == 50
    assert len(commits) < 25


@on_sqlite
async def test_nobody_is_told_before_the_commit(
    writer: TransactionRunner, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A1: and a COMMIT that fails fails everyone it was for."""

    async def refused(_: sqlite.Connection) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    before = await dump(database)
    with monkeypatch.context() as patch:
        patch.setattr(sqlite.Connection, "commit", refused)
        results = await asyncio.gather(*map(writer.run, map(adding, "abc")), return_exceptions=True)
    assert [type(each) for each in results] == [OperationalError] * 3
    assert await dump(database) == before
    await writer.run(adding("a"))
    assert await names(database) == ["a"]


@on_sqlite
async def test_when_the_database_drops_a_transaction_all_of_it_fails(
    writer: TransactionRunner, database: Database
) -> None:
    """As SQLite does by itself when the disk is full."""

    def full(transaction: Transaction) -> None:
        transaction._execute("ROLLBACK", ())
        raise OperationalError("INSERT", None, sqlite3.OperationalError("disk is full"))

    works = [adding("a"), failing("c", NotFound()), full, adding("b")]
    results = await asyncio.gather(*map(writer.run, works), return_exceptions=True)
    lost = OperationalError
    assert [type(each) for each in results] == [lost, NotFound, lost, lost]
    assert await names(database) == []
    await writer.run(adding("a"))
    assert await names(database) == ["a"]


@on_sqlite
async def test_who_hangs_up_during_a_commit_that_fails_is_told_nothing(
    writer: TransactionRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks: list[asyncio.Task[Any]] = []

    async def commit(_: sqlite.Connection) -> None:
        tasks[0].cancel()
        await asyncio.sleep(0)
        raise sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr(sqlite.Connection, "commit", commit)
    tasks += [asyncio.create_task(writer.run(adding(name))) for name in ("a", "b")]
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(each) for each in results] == [asyncio.CancelledError, OperationalError]


@on_sqlite
async def test_who_hung_up_while_waiting_writes_nothing(
    writer: TransactionRunner, database: Database, database_url: str
) -> None:
    with writing_elsewhere(database_url) as other:
        gone, waiting = (asyncio.create_task(writer.run(adding(name))) for name in "ab")
        await asyncio.sleep(0.05)
        gone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gone
        other.execute("ROLLBACK")
        await waiting
    assert await names(database) == ["b"]


@on_sqlite
async def test_who_hangs_up_during_the_commit_keeps_nobody_from_it(
    writer: TransactionRunner, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    held, original = asyncio.Event(), sqlite.Connection.commit

    async def slow(connection: sqlite.Connection) -> None:
        await held.wait()
        await original(connection)

    monkeypatch.setattr(sqlite.Connection, "commit", slow)
    leaving, staying, failed = (
        asyncio.create_task(writer.run(work))
        for work in (adding("a"), adding("b"), failing("c", NotFound()))
    )
    with pytest.raises(NotFound):  # what was undone need not wait for the disk
        await failed
    leaving.cancel()
    held.set()
    await staying
    assert await names(database) == ["a", "b"]


@on_sqlite
async def test_a_turn_that_does_not_come_fails_all_who_wait(
    writer: TransactionRunner,
    database: Database,
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sqlite, "LOCK_WAIT_SECONDS", 0.05)
    with writing_elsewhere(database_url):
        results = await asyncio.gather(*map(writer.run, map(adding, "ab")), return_exceptions=True)
    assert [type(each) for each in results] == [OperationalError] * 2
    assert "database is locked" in str(results[0])
    await writer.run(adding("c"))
    assert await names(database) == ["c"]


@on_sqlite
async def test_closing_waits_for_what_is_under_way(
    writer: TransactionRunner, database: Database
) -> None:
    assert isinstance(writer, GroupCommitRunner)
    await writer.dispose()  # nothing was opened yet
    written = asyncio.create_task(writer.run(adding("a")))
    await asyncio.sleep(0)
    await writer.dispose()
    assert written.done() or await written
    assert await names(database) == ["a"]
