"""PostgreSQL behind PgBouncer: requests are served, and session limits stay in force."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from psycopg.errors import QueryCanceled
from psycopg.pq import TransactionStatus
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError

from app.cli.doctor import databases
from app.cli.doctor.findings import Verdict
from app.db import engine as database
from app.db.engine import Database, connect
from tests.conftest import make_settings
from tests.support import faults
from tests.support.client import Client, Person
from tests.support.commands import SetEnv, invoke
from tests.support.diagnosis import OwnDatabase, diagnose
from tests.support.openapi import Contract
from tests.support.people import new_user
from tests.support.pgbouncer import pgbouncer
from tests.support.schema import connected, tables

on_postgresql = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
# How PgBouncer pools, and what is said of it.
WAYS = [
    ("transaction", "none"),
    ("transaction", "transaction"),
    ("session", "none"),
    ("session", "session"),
]
CLIENTS, ROUNDS = 12, 5
# In session mode each connection of the app keeps one to the server.
SIZES = {"transaction": 4, "session": 30}
ways = pytest.mark.parametrize(("mode", "pooler"), WAYS, indirect=["mode"])


@pytest.fixture
def mode(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


@pytest.fixture
def by_way(database_url: str, mode: str) -> Iterator[str]:
    """The database of the tests, by way of a pooler."""
    with pgbouncer(database_url, mode, size=SIZES[mode]) as url:
        yield url


@pytest.fixture
async def client(
    app: Any,  # noqa: ARG001 empties the database
    by_way: str,
    pooler: str,
    contract: Contract,
    tmp_path: Path,
) -> AsyncIterator[Client]:
    """An app on a socket that speaks to its database through the pooler."""
    settings = {"database_pooler": pooler}
    async with faults.served_client(by_way, tmp_path, contract, **settings) as client:
        yield client


@pytest.fixture
async def pooled(by_way: str, pooler: str, tmp_path: Path) -> AsyncIterator[Database]:
    opened = connect(make_settings(by_way, tmp_path, database_pooler=pooler))
    yield opened
    await opened.dispose()


@on_postgresql
@ways
async def test_all_requests_are_served(client: Client, mode: str) -> None:
    people = [await new_user(client) for _ in range(CLIENTS)]
    every = await asyncio.gather(*[_journey(person) for person in people])
    found = Counter(status for each in every for status in each)
    assert found == {
        201: 2 * CLIENTS * ROUNDS,
        200: 5 * CLIENTS * ROUNDS,
        412: CLIENTS * ROUNDS,
        204: CLIENTS * ROUNDS,
        404: CLIENTS * ROUNDS,
        422: CLIENTS * ROUNDS,
    }, mode


async def _journey(person: Person) -> list[int]:
    """Reads and writes by a session, by prepared statements, and refusals of both."""
    answers = []
    for turn in range(ROUNDS):
        body = {"title": f"Title {turn}", "content": "words", "tags": [f"t{turn}"]}
        created = await person.post("/posts", body)
        path = created.headers["location"].removeprefix("/api/v1")
        answers += [created, await person.post("/posts", body | {"status": "published"})]
        answers += [await person.get(path), await person.get("/posts", params={"tag": f"t{turn}"})]
        answers.append(await person.patch(path, {"title": f"Other {turn}"}))
        stale = {"If-Match": '"99"'}
        answers.append(await person.patch(path, {"title": "Late"}, headers=stale))
        answers += [await person.get("/users/me"), await person.get("/tags")]
        answers.append(await person.delete(path))
        answers += [await person.get(f"{path}0000"), await person.post("/posts", {"title": ""})]
    return [answer.status_code for answer in answers]


@on_postgresql
@ways
async def test_limits_are_in_force_on_every_path(
    pooled: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = {"statement_timeout": "300ms", "lock_timeout": "3s", "timezone": "UTC"}
    monkeypatch.setitem(database._POSTGRESQL_SESSION, "statement_timeout", "300ms")
    for engine in (pooled.engine, pooled.reading, pooled.probing):
        for _ in range(8):  # the driver prepares what comes for the sixth time
            async with engine.connect() as connection:
                for name, value in wanted.items():
                    shown = await connection.scalar(text(f"SELECT current_setting('{name}')"))
                    assert shown == value
        async with engine.connect() as connection:
            with pytest.raises(DBAPIError) as caught:
                await connection.execute(text("SELECT pg_sleep(5)"))
            assert isinstance(caught.value.orig, QueryCanceled)
        async with engine.connect() as connection:
            assert await connection.scalar(text("SELECT 1")) == 1


@on_postgresql
@ways
async def test_nobody_else_is_left_with_our_settings(
    pooled: Database, by_way: str, mode: str, pooler: str
) -> None:
    """Another app behind the same pooler has the server's own."""
    async with pooled.engine.connect() as connection:
        await connection.execute(text("SELECT 1"))
    await pooled.dispose()
    with connected(make_url(by_way)) as other:
        shown = [other.scalar(text("SHOW statement_timeout")) for _ in range(3)]
    assert set(shown) == {"0"}, (mode, pooler)


@on_postgresql
@pytest.mark.parametrize(("mode", "pooler"), WAYS[:2], indirect=["mode"])
async def test_who_cancels_hits_nobody_else(pooled: Database, by_way: str) -> None:
    """Statements are cancelled, in all their phases, while others use the same sessions."""
    stopped = asyncio.Event()
    other = connect(make_settings(by_way, Path("/nowhere")))

    async def use() -> int:
        done = 0
        while not stopped.is_set():
            async with other.reading.connect() as connection:
                await connection.execute(text("SELECT pg_sleep(0.002)"))
            done += 1
        return done

    users = [asyncio.create_task(use()) for _ in range(3)]
    for turn in range(60):
        asking = asyncio.create_task(_ask(pooled, seconds=0.004))
        await asyncio.sleep(0.0005 * (turn % 20))
        asking.cancel()
        await asyncio.wait({asking})
    stopped.set()
    assert all(await asyncio.gather(*users))
    await other.dispose()


async def _ask(pooled: Database, *, seconds: float) -> None:
    async with pooled.begin() as session:
        await session.execute(text(f"SELECT pg_sleep({seconds})"))


# --- Migrations, backups, the doctor -------------------------------------------------------------


@pytest.fixture
async def empty(own_database: OwnDatabase) -> AsyncIterator[str]:
    async with own_database("postgresql") as url:
        yield url


@pytest.mark.parametrize(("mode", "pooler"), WAYS)
async def test_migrations_go_past_the_pooler(
    empty: str, mode: str, pooler: str, set_env: SetEnv
) -> None:
    with pgbouncer(empty, mode) as url:
        set_env(database_url=url, database_pooler=pooler)
        if pooler != "session":
            refused = await invoke("migrate")
            assert refused.exit_code == 1
            assert str(refused.exception).startswith("cimiento: not migrated: a pooler stands")
            assert "\n" not in str(refused.exception)
            with connected(empty) as connection:
                assert tables(connection) == set()
            set_env(database_direct_url=empty)
        migrated = await invoke("migrate")
        assert migrated.exit_code == 0, migrated.output
        set_env(database_direct_url="")
        again = await invoke("migrate")
        assert again.exit_code == 0, "there is nothing to do"
        with connected(empty) as connection:
            assert "users" in tables(connection)


async def test_backups_go_past_the_pooler(empty: str, set_env: SetEnv, tmp_path: Path) -> None:
    copy = str(tmp_path / "copy")
    with pgbouncer(empty, "transaction") as url:
        set_env(database_url=url, database_direct_url=empty)
        assert (await invoke("migrate")).exit_code == 0
        set_env(database_direct_url="")
        refused = await invoke("backup", copy)
        assert "a pooler stands in between" in str(refused.exception)
        set_env(database_direct_url=empty)
        assert (await invoke("backup", copy)).exit_code == 0
        set_env(database_direct_url="")
        refused = await invoke("restore", copy, "--force")
        assert "a pooler stands in between" in str(refused.exception)
        set_env(database_direct_url=empty)
        assert (await invoke("restore", copy, "--force")).exit_code == 0


@pytest.mark.parametrize(("mode", "pooler"), WAYS)
async def test_the_doctor_tells_of_it_and_cuts_nobody(
    empty: str, mode: str, pooler: str, set_env: SetEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(databases._KILL, "postgresql", "nobody is terminated: {}")
    with pgbouncer(empty, mode) as url:
        set_env(database_url=url, database_pooler=pooler)
        found = await diagnose()
        finding = found.of("pooler")
        assert "a pooler stands between" in finding.message
        assert finding.verdict is (Verdict.ok if pooler == "session" else Verdict.warn)
        assert "reconnect" not in found.checks()
        assert set(found.verdicts("time_zone")) == {Verdict.ok}
        if pooler == "transaction":
            set_env(database_direct_url=empty)
            assert (await diagnose()).of("pooler").verdict is Verdict.ok


# --- The driver ----------------------------------------------------------------------------------


async def test_every_transaction_begins_with_the_settings(empty: str, tmp_path: Path) -> None:
    options = "options=-c%20search_path%3Dapp%20-cstatement_timeout%3D7s%20-ctimezone%3DCET"
    with pgbouncer(empty, "transaction", size=1) as url:
        settings = make_settings(f"{url}?{options}", tmp_path, database_pooler="transaction")
        opened = connect(settings)
        async with opened.engine.begin() as connection:
            await connection.exec_driver_sql("CREATE TABLE IF NOT EXISTS pg_temp.n (n int)")
            rows: Any = [{"n": number} for number in range(3)]
            await connection.execute(text("INSERT INTO pg_temp.n VALUES (:n)"), rows)
            assert await connection.scalar(text("SELECT sum(n) FROM pg_temp.n")) == 3
        for engine in (opened.engine, opened.reading):
            async with engine.connect() as connection:
                shown = [
                    await connection.scalar(text(f"SELECT current_setting('{name}')"))
                    for name in ("search_path", "statement_timeout", "lock_timeout", "timezone")
                ]
                assert shown == ["app", "7s", "3s", "UTC"]
        await opened.dispose()


async def test_a_statement_without_a_transaction_that_fails_leaves_none(
    empty: str, tmp_path: Path
) -> None:
    with pgbouncer(empty, "transaction", size=1) as url:
        opened = connect(make_settings(url, tmp_path))
        async with opened.reading.connect() as connection:
            for _ in range(2):
                with pytest.raises(DBAPIError):
                    await connection.exec_driver_sql("SELECT 1 / 0")
                raw: Any = (await connection.get_raw_connection()).driver_connection
                assert raw.autocommit
                assert raw.info.transaction_status == TransactionStatus.IDLE
            # One that ends the connection as well.
            with pytest.raises(DBAPIError) as caught:
                await connection.exec_driver_sql("SELECT pg_terminate_backend(pg_backend_pid())")
            assert caught.value.connection_invalidated
        async with opened.reading.connect() as connection:
            assert await connection.scalar(text("SELECT 1")) == 1
        await opened.dispose()


async def test_a_setting_that_the_server_refuses_fails_at_once(empty: str, tmp_path: Path) -> None:
    opened = connect(make_settings(f"{empty}?options=-cno_such_thing%3D1", tmp_path))
    with pytest.raises(DBAPIError, match="no_such_thing"):
        async with opened.probing.connect():
            pass
    await opened.dispose()
