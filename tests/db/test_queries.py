"""Prepared queries: parameters, visibility, and errors of the connection."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import bindparam, column, event, select, table, update
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from app.core.permissions import Permission
from app.db import engine as app_database
from app.db.engine import Database, connect
from app.db.queries import PreparedQuery, QueryRunner, SqliteQueryRunner, open_query_runner
from app.models.base import utc_now
from app.models.roles import Role
from app.models.users import User
from tests.conftest import make_settings
from tests.support.client import Client
from tests.support.faults import checked_out
from tests.support.listings import page
from tests.support.people import granting, new_users
from tests.support.proxied_app import ProxiedApp
from tests.support.proxy import Proxy

on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
on_servers = pytest.mark.parametrize("database_url", ["mariadb", "postgresql"], indirect=True)
NAMED = PreparedQuery(select(User.id, User.name).where(User.id == bindparam("user_id")))
NOWHERE = PreparedQuery(select(column("id")).select_from(table("nowhere")))


@pytest.fixture
def reader(client: Client) -> QueryRunner:
    """The app's own."""
    found: QueryRunner = client.app.state.query_runner
    return found


# --- Parameters ----------------------------------------------------------------------------------


async def test_a_parameter_that_is_not_given_is_an_error(
    client: Client, reader: QueryRunner
) -> None:
    """Never a NULL, which would find nothing, or everything."""
    ana = await client.user()
    assert list(await reader.rows(NAMED, {"user_id": ana.id})) == [(ana.id, "Ana")]
    for given in ({}, {"id": ana.id}):
        with pytest.raises(KeyError, match="user_id"):
            await reader.rows(NAMED, given)
    assert list(await reader.rows(NAMED, {"user_id": None})) == []
    assert list(await reader.rows(NAMED, {"user_id": ana.id, "other": 1})) == [(ana.id, "Ana")]


async def test_equal_questions_have_equal_arguments(client: Client, reader: QueryRunner) -> None:
    """What is remembered of answers goes by them; a parameter that is not used is none."""
    ana = await client.user()
    first, again, other = (
        reader.arguments(NAMED, given)
        for given in (
            {"user_id": ana.id},
            {"user_id": ana.id, "caller_id": 7},
            {"user_id": ana.id + 1},
        )
    )
    assert first == again != other
    assert hash(first) == hash(again)


async def test_far_away_pages_are_pages(client: Client) -> None:
    """An offset beyond 32 bits, which PostgreSQL would take for its integer."""
    ana = await client.user()
    await ana.write()
    for _ in range(2):
        for size in (1, 100):
            found = await page(client, "/posts", page=2**31 - 1, page_size=size)
            assert (found["items"], found["total"]) == ([], 1)


MOMENT = datetime(2026, 1, 2, 3, 4, 5, 67, tzinfo=UTC)
WRITTEN = PreparedQuery(
    select(User.created_at, User.deleted_at).where(User.id == bindparam("user_id"))
)


@pytest.mark.parametrize(
    ("url", "arguments", "kept"),
    [
        ("sqlite:///x.db", (7,), "2026-01-02 03:04:05.000067"),
        ("mysql://x@x/x", (7,), MOMENT.replace(tzinfo=None)),
        ("postgresql://x@x/x", {"user_id": 7}, MOMENT),
    ],
)
def test_each_driver_is_asked_and_understood_in_its_own_way(
    tmp_path: Path, url: str, arguments: object, kept: object
) -> None:
    """What it is handed, and how a moment it hands back goes into JSON."""
    database = connect(make_settings(url, tmp_path))
    compiled = WRITTEN.compiled(database.engine.dialect)
    assert compiled.arguments({"user_id": 7}) == arguments
    assert list(compiled.converted([(kept, None)])) == [("2026-01-02T03:04:05.000067Z", None)]
    assert list(compiled.converted([])) == []
    reader = open_query_runner(database)
    assert isinstance(reader, SqliteQueryRunner) == (database.dialect == "sqlite")
    assert reader.arguments(WRITTEN, {"user_id": 7}) == (7,)


# --- The trash -----------------------------------------------------------------------------------


async def trash(database: Database, model: Any, row_id: int) -> None:
    """Behind the API, which would clean up around it as well."""
    async with database.begin() as session:
        changed = update(model).where(model.id == row_id).values(deleted_at=utc_now())
        await session.execute(changed)


async def test_a_role_in_the_trash_is_nobodys(client: Client, database: Database) -> None:
    """In joins, and in projections of other rows."""
    admin, ana = await new_users(
        client, ["admin"], ["user", granting(Permission.users_read, Permission.roles_read)]
    )
    roles = (await admin.get(f"/users/{ana.id}")).json()["roles"]
    (trashed,) = [role for role in roles if role["name"] != "user"]
    assert (await ana.get("/users")).status_code == 200
    await trash(database, Role, trashed["id"])
    assert (await ana.get("/users")).status_code == 403
    me = (await ana.get("/users/me")).json()
    assert "users:read" not in me["permissions"]
    seen = await page(admin, "/users", sort="name")
    (in_page,) = [user for user in seen["items"] if user["id"] == ana.id]
    one = (await admin.get(f"/users/{ana.id}")).json()
    theirs = (await page(admin, f"/users/{ana.id}/roles"))["items"]
    for found in (me["roles"], in_page["roles"], one["roles"], theirs):
        assert [role["name"] for role in found] == ["user"]
    assert trashed["id"] not in [r["id"] for r in (await page(admin, "/roles"))["items"]]
    assert (await admin.get(f"/roles/{trashed['id']}")).status_code == 404


async def test_a_user_in_the_trash_is_no_member_and_no_author(
    client: Client, database: Database
) -> None:
    admin, ana, bea = await new_users(client, ["admin"], ["user"], [granting()])
    posts = [await each.write(tags=[f"of {each.id}"]) for each in (admin, admin)]
    (role,) = (await page(admin, f"/users/{bea.id}/roles"))["items"]
    assert role["user_count"] == 1
    await trash(database, User, bea.id)
    assert (await admin.delete(f"/posts/{posts[0]['id']}")).status_code == 204
    assert (await admin.get(f"/roles/{role['id']}")).json()["user_count"] == 0
    members = await page(admin, f"/roles/{role['id']}/users")
    assert (members["items"], members["total"]) == ([], 0)
    assert (await admin.get(f"/users/{bea.id}")).status_code == 404
    assert (await bea.get("/users/me")).status_code == 401
    shown = await page(ana, "/posts")
    assert ([post["id"] for post in shown["items"]], shown["total"]) == ([posts[1]["id"]], 1)
    (tag,) = (await page(ana, "/tags"))["items"]
    assert tag["post_count"] == 1
    in_trash = await page(admin, "/posts", deleted=True)
    assert [post["id"] for post in in_trash["items"]] == [posts[0]["id"]]


# --- Errors --------------------------------------------------------------------------------------


async def test_an_error_of_the_database_is_what_a_session_raises(
    client: Client, reader: QueryRunner
) -> None:
    """And leaves the reader as good as before."""
    ana = await client.user()
    for _ in range(3):
        with pytest.raises(DBAPIError, match="nowhere") as caught:
            await reader.rows(NOWHERE, {})
        assert not caught.value.connection_invalidated
        assert list(await reader.rows(NAMED, {"user_id": ana.id})) == [(ana.id, "Ana")]


@on_sqlite
async def test_connections_that_are_of_no_use_are_replaced(
    client: Client, database_url: str, tmp_path: Path
) -> None:
    """As a reader does on servers: one that fails is thrown away, and all of them when the
    driver says that the server is gone."""
    ana = await client.user()
    own = connect(make_settings(database_url, tmp_path, database_pool_size=2))
    reader = QueryRunner(own)
    try:
        async with own.reading.connect() as first, own.reading.connect() as second:
            pooled = [await each.get_raw_connection() for each in (first, second)]
            opened: list[Any] = [each.driver_connection for each in pooled]
        for connection in opened:
            connection._raw.close()
        event.listen(own.engine.sync_engine, "handle_error", take_for_gone)
        for _ in range(3):
            found = await reader.rows(NAMED, {"user_id": ana.id})
            assert list(found) == [(ana.id, "Ana")]
        assert checked_out(own) == 0
    finally:
        await reader.dispose()


def take_for_gone(context: Any) -> None:
    """What the drivers of servers say by themselves."""
    context.is_disconnect = "closed database" in str(context.original_exception)


@on_sqlite
async def test_a_full_pool_is_said_at_once(
    database_url: str, tmp_path: Path, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not retried: the request has already waited for the whole timeout."""
    ana = await client.user()
    monkeypatch.setattr(app_database, "POOL_TIMEOUT_SECONDS", 1.5)
    own = connect(make_settings(database_url, tmp_path, database_pool_size=1))
    reader = QueryRunner(own)
    async with own.reading.connect():
        started = time.perf_counter()
        with pytest.raises(PoolTimeout):
            await reader.rows(NAMED, {"user_id": ana.id})
        assert time.perf_counter() - started < 2.9
    assert list(await reader.rows(NAMED, {"user_id": ana.id})) == [(ana.id, "Ana")]
    await reader.dispose()


@on_servers
@pytest.mark.parametrize("parallel", [1, 6])
async def test_connections_killed_between_two_reads_are_replaced(
    client: Client, reader: QueryRunner, database_url: str, parallel: int
) -> None:
    ana = await client.user()
    proxied_app = ProxiedApp(database_url, Proxy(make_url(database_url)), client, ana, "")

    async def read() -> None:
        found = await asyncio.gather(
            *(reader.rows(NAMED, {"user_id": ana.id}) for _ in range(parallel))
        )
        assert [list(rows) for rows in found] == [[(ana.id, "Ana")]] * parallel

    for _ in range(2):
        await read()
        assert await proxied_app.kill_connections() >= 1
        await read()
    assert (await ana.patch("/users/me", {"name": "Ana"})).status_code == 200
