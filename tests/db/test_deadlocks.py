"""A request that meets a deadlock, in a savepoint too, is run again."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import psycopg
import pymysql
import pytest
from sqlalchemy import event, func, select, update
from sqlalchemy.exc import OperationalError

from app.cli.seeding import seed
from app.crud import audit_events
from app.db.engine import Database
from app.models.audit_events import AuditAct
from app.models.base import INCLUDE_DELETED, utc_now
from app.models.posts import Post
from app.models.users import User
from app.tasks.retention import purge_deleted
from tests.support import faults
from tests.support.client import Client
from tests.support.concurrency import statuses
from tests.support.deadlocks import Rival, rival_of
from tests.support.logs import Output

ROUNDS = 20
LONG_AGO = utc_now() - timedelta(days=365)
# SQLite has one writer at a time, and so no deadlocks.
on_servers = pytest.mark.parametrize("database_url", ["mariadb", "postgresql"], indirect=True)


@pytest.fixture
async def rival(client: Client) -> AsyncIterator[Rival]:
    async with rival_of(client.database) as found:
        yield found


@on_servers
async def test_a_role_given_in_a_deadlock_is_given(client: Client, rival: Rival) -> None:
    """`add_if_missing`: MariaDB has dropped the savepoint with the whole transaction."""
    admin, ana = await client.admin(), await client.user()
    role = (await admin.post("/roles", {"name": "giver"})).json()["id"]
    path, row = f"/users/{ana.id}/roles/{role}", {"user_id": ana.id, "role_id": role}
    answers = []
    for _ in range(ROUNDS):
        async with rival.crossing("user_roles", row, f"SELECT id FROM users WHERE id = {ana.id}"):
            answers.append(await admin.put(path))
        given = {each["id"] for each in (await admin.get(f"/users/{ana.id}/roles")).json()["items"]}
        assert role in given
        assert (await admin.delete(path)).status_code == 204
    assert rival.deadlocks == ROUNDS
    assert statuses(answers) == {204: ROUNDS}


@on_servers
async def test_a_post_whose_new_tag_meets_a_deadlock_is_made(client: Client, rival: Rival) -> None:
    """`insert_if_missing`, in a short transaction."""
    ana = await client.user()
    held = f"SELECT id FROM users WHERE id = {ana.id}"
    answers = []
    for number in range(ROUNDS):
        name = f"tag {number}"
        async with rival.crossing("tags", {"name": name}, held):
            answers.append(await ana.post("/posts", {"title": "A", "content": "", "tags": [name]}))
        assert answers[-1].json()["tags"] == [name]
    assert rival.deadlocks == ROUNDS
    assert statuses(answers) == {201: ROUNDS}
    assert (await ana.get(f"/users/{ana.id}/posts?status=draft")).json()["total"] == ROUNDS


@on_servers
async def test_a_post_that_gets_a_new_tag_in_a_deadlock_has_it(
    client: Client, rival: Rival
) -> None:
    """`insert_if_missing`, in the transaction of a session."""
    ana = await client.user()
    post = await ana.write()
    held = f"SELECT id FROM posts WHERE id = {post['id']}"
    answers = []
    for number in range(ROUNDS):
        name = f"tag {number}"
        async with rival.crossing("tags", {"name": name}, held):
            answers.append(await ana.patch(f"/posts/{post['id']}", {"tags": [name]}))
        assert answers[-1].json()["tags"] == [name]
    assert rival.deadlocks == ROUNDS
    assert statuses(answers) == {200: ROUNDS}
    assert answers[-1].json()["version"] == 1 + ROUNDS


async def test_what_is_met_at_every_try_inside_a_savepoint_is_a_503(
    client: Client, logs: Output
) -> None:
    """And the log says what it was and where, but not the driver's text."""
    admin, ana = await client.admin(), await client.user()
    role = (await admin.post("/roles", {"name": "giver"})).json()["id"]
    database = client.database
    known: dict[str, dict[str, object]] = {
        "sqlite": {"sqlite": "SQLITE_BUSY"},
        "mysql": {"errno": 1213},
        "postgresql": {"sqlstate": "40P01"},
    }
    before = await faults.dump(database)
    logs.take()
    with doomed_inserts(database, "user_roles") as met:
        answer = await admin.put(f"/users/{ana.id}/roles/{role}")
    assert (answer.status_code, len(met)) == (503, 4)
    assert answer.headers["retry-after"]
    assert await faults.dump(database) == before
    lines = logs.entries()
    [line] = [each for each in lines if each["message"] == "database refused"]
    retried = [each for each in lines if each["message"] == "transaction retried"]
    assert [each["attempt"] for each in retried] == [1, 2, 3]
    for each in (line, *retried):
        assert each.items() >= known[database.dialect].items()
        innermost, caller, *_ = each["where"].split(" < ")
        assert re.fullmatch(r"app/db/rows\.py:\d+ add_if_missing", innermost)
        assert re.fullmatch(r"app/crud/roles\.py:\d+ assign", caller)
    assert SECRET not in json.dumps(lines)


@contextmanager
def doomed_inserts(database: Database, table: str) -> Iterator[list[Exception]]:
    """Every INSERT into a table meets what ends its transaction, as the server would do it."""
    met: list[Exception] = []

    def execute(cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith(f"INSERT INTO {table}"):
            if database.dialect == "mysql":
                cursor.execute("ROLLBACK")
            met.append(_DOOM[database.dialect]())
            raise met[-1]

    engine = database.engine.sync_engine
    event.listen(engine, "do_execute", execute)
    try:
        yield met
    finally:
        event.remove(engine, "do_execute", execute)


SECRET = "row-of-secrets"
_DOOM: dict[str, Callable[[], Exception]] = {
    "sqlite": lambda: faults.sqlite_error(
        sqlite3.OperationalError, f"database is locked: {SECRET}", "SQLITE_BUSY"
    ),
    "mysql": lambda: pymysql.err.OperationalError(1213, f"Deadlock found: {SECRET}"),
    "postgresql": lambda: psycopg.errors.DeadlockDetected(f"deadlock detected: {SECRET}"),
}


# --- What is no request --------------------------------------------------------------------------


async def test_background_work_and_commands_are_run_again_too(client: Client) -> None:
    """The purge, the demo data, the trail of refusals and the end of all logins lose nothing."""
    admin, ana = await client.admin(), await client.user()
    database, settings = client.database, client.app.state.settings
    assert (await admin.delete(f"/users/{ana.id}")).status_code == 204
    assert (await admin.delete(f"/posts/{(await admin.write())['id']}")).status_code == 204
    async with database.begin() as session:
        for kind in (User, Post):
            old = update(kind).where(kind.deleted_at.is_not(None)).values(deleted_at=LONG_AGO)
            await session.execute(old, execution_options={INCLUDE_DELETED: True})
    for fault in faults.TRANSIENT[database.dialect]:
        with faults.failing_writes(database, fault, times=2) as sabotage:
            done = await purge_deleted(database, settings)
            await seed(database, users=1, posts=1, progress=lambda _: None)
        assert sabotage.hits == 2
        with faults.failing_commits(database, fault, times=2) as sabotage:
            act = AuditAct.access_denied
            assert await audit_events.record_apart(database, act, ("user", ana.id), reason="test")
        assert sabotage.hits == 2
        assert not done.failures
        assert (done.counts["users"], done.counts["posts"]) in {(1, 1), (0, 0)}
    async with database.begin(readonly=True) as session:
        everybody = select(func.count()).select_from(User)
        assert await session.scalar(everybody) == 1 + len(faults.TRANSIENT[database.dialect])


async def test_background_work_gives_up_after_some_tries_and_at_once_on_a_defect(
    client: Client,
) -> None:
    database, settings = client.database, client.app.state.settings
    admin = await client.admin()
    assert (await admin.delete(f"/posts/{(await admin.write())['id']}")).status_code == 204
    async with database.begin() as session:
        old = update(Post).values(deleted_at=LONG_AGO)
        await session.execute(old, execution_options={INCLUDE_DELETED: True})
    fault = faults.TRANSIENT[database.dialect][0]
    with faults.failing_writes(database, fault) as sabotage:
        done = await purge_deleted(database, settings)
    assert isinstance(done.failures.pop("posts"), OperationalError)
    assert (sabotage.hits, done.failures) == (4, {})
    defect = faults.failing_writes(database, ZeroDivisionError)
    with defect as sabotage, pytest.raises(ZeroDivisionError):
        await purge_deleted(database, settings)
    assert sabotage.hits == 1
