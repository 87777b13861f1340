"""An app that serves replies too: run by `tests/web/test_other_resources.py`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from sqlalchemy import select, update

from alembic import command
from app.core.permissions import Permission
from app.core.security import Passwords
from app.db import migrations
from app.main import close_app, create_app
from app.models.base import INCLUDE_DELETED, utc_now
from app.models.posts import Post
from app.models.users import User
from tests.conftest import CHEAP, make_settings, migrate
from tests.replies.models import Reply
from tests.replies.permissions import REPLIES_WRITE
from tests.replies.resources import EVERYTHING, MIGRATIONS
from tests.support.client import Client, Person
from tests.support.people import GRANTED_TO_USERS
from tests.support.purging import empty

ALL: dict[str, Any] = {INCLUDE_DELETED: True}


@pytest.fixture(scope="session")
def database_url(database_url: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The database of our tables, with those of the package."""
    migrate(database_url, tmp_path_factory.mktemp("migrated"), location=MIGRATIONS)
    return database_url


@pytest.fixture(scope="session")
async def apps(
    tmp_path_factory: pytest.TempPathFactory,
    databases: Callable[[str], str],  # noqa: ARG001 dropped when the apps are closed
) -> AsyncIterator[Callable[[str], FastAPI]]:
    created: dict[str, FastAPI] = {}

    def app_of(url: str) -> FastAPI:
        if url not in created:
            settings = make_settings(url, tmp_path_factory.mktemp("data"))
            created[url] = create_app(settings, passwords=Passwords(CHEAP), resources=EVERYTHING)
        return created[url]

    yield app_of
    for each in created.values():
        await close_app(each)


async def reply(person: Client, post_id: int, text: str = "Well said.", **options: Any) -> int:
    response = await person.post(f"/posts/{post_id}/replies", {"text": text}, **options)
    assert response.status_code == 201, response.text
    return int(response.json()["id"])


async def live(client: Client) -> set[int]:
    async with client.database.begin(readonly=True) as session:
        return set(await session.scalars(select(Reply.id)))


async def states(client: Client) -> dict[int, tuple[Any, ...]]:
    """Return every column of each reply, live or in the trash."""
    columns = [column for column in Reply.__table__.columns if column.key != "id"]
    async with client.database.begin(readonly=True) as session:
        rows = await session.execute(select(Reply.id, *columns), execution_options=ALL)
        return {row[0]: tuple(row[1:]) for row in rows}


async def restore(admin: Person, path: str) -> None:
    assert (await admin.post(f"{path}/restore")).status_code == 200


async def delete(admin: Person, path: str) -> None:
    assert (await admin.delete(path)).status_code == 204


def test_the_document_has_it(shared_app: FastAPI) -> None:
    document = shared_app.openapi()
    assert document["tags"][-1] == {"name": "replies", "description": "What users reply to posts."}
    operation = document["paths"]["/api/v1/posts/{post_id}/replies"]["post"]
    assert operation["security"] == [{"OAuth2": ["replies:write"]}]
    assert operation["description"].endswith("Permission: `replies:write`.")
    assert "Idempotency-Key" in {each["name"] for each in operation["parameters"]}
    assert {"ETag", "Location", "Idempotency-Replayed"} <= {
        *operation["responses"]["201"]["headers"]
    }
    flow = document["components"]["securitySchemes"]["OAuth2"]["flows"]["password"]
    assert flow["scopes"]["replies:write"].startswith("Reply to posts")
    schemas = document["components"]["schemas"]
    assert schemas["Permission"]["enum"][-1] == "replies:write"
    assert schemas["RoleCreate"]["properties"]["permissions"]["maxItems"] == len(Permission)


async def test_it_is_served_like_the_others(client: Client) -> None:
    ana, luis = await client.user(), await client.user()
    post_id = (await ana.write())["id"]
    path = f"/posts/{post_id}/replies"
    key = {"Idempotency-Key": "once"}
    first = await reply(luis, post_id, headers=key)
    assert await reply(luis, post_id, headers=key) == first, "a replay"
    second = await reply(ana, post_id, "Thank you.")
    page = (await ana.get(path)).json()
    assert [each["id"] for each in page["items"]] == [first, second]
    assert (await ana.get(f"{path}/{first}")).json() == page["items"][0]
    assert (await ana.get(path, params={"colour": "red"})).status_code == 422
    assert (await client.post(path, {"text": "Hello"})).status_code == 401
    assert (await ana.delete(f"{path}/{first}")).status_code == 404
    assert (await luis.delete(f"{path}/{first}")).status_code == 204
    assert await live(client) == {second}


async def test_its_permission_is_one_of_all(client: Client) -> None:
    admin, ana, mute = await client.admin(), await client.user(), await client.user_with()
    mine = (await ana.get("/users/me")).json()["permissions"]
    assert mine == [*GRANTED_TO_USERS, "replies:write"], "granted to the role `user`"
    assert (await admin.get("/users/me")).json()["permissions"] == list(Permission)
    post_id = (await ana.write())["id"]
    refused = await mute.post(f"/posts/{post_id}/replies", {"text": "Hello"})
    assert (refused.status_code, refused.json()["code"]) == (403, "insufficient_scope")
    body = {"name": "replier", "permissions": [REPLIES_WRITE]}
    role = (await admin.post("/roles", body)).json()
    assert role["permissions"] == ["replies:write"]
    assert (await admin.put(f"/users/{mute.id}/roles/{role['id']}")).status_code == 204
    await reply(mute, post_id)
    unknown = await admin.post("/roles", body | {"permissions": ["replies:read"]})
    assert unknown.status_code == 422
    assert "replies:write" in unknown.json()["errors"][0]["message"]
    listing = await admin.get("/permissions", headers={"Accept-Language": "es"})
    described = {each["name"]: each["description"] for each in listing.json()["items"]}
    assert described["replies:write"].startswith("Responder a publicaciones")


async def test_replies_go_and_come_back_with_their_post_and_their_author(client: Client) -> None:
    """Exactly: what was deleted by itself stays, and what two parents took waits for both."""
    admin, ana, luis = await client.admin(), await client.user(), await client.user()
    post_id = (await ana.write())["id"]
    hers, _, gone = [await reply(each, post_id) for each in (ana, luis, luis)]
    post, author, replier = f"/posts/{post_id}", f"/users/{ana.id}", f"/users/{luis.id}"
    assert (await luis.delete(f"{post}/replies/{gone}")).status_code == 204
    before = await states(client)
    for path, left in ((post, set()), (author, set()), (replier, {hers})):
        await delete(admin, path)
        assert await live(client) == left
        await restore(admin, path)
        assert await states(client) == before
    # In every order of going and of coming back.
    for first, second in ((post, replier), (replier, post), (author, replier)):
        for back in ((first, second), (second, first)):
            await delete(admin, first)
            await delete(admin, second)
            assert await live(client) == set()
            await restore(admin, back[0])
            assert await live(client) == ({hers} if back[0] != replier else set())
            await restore(admin, back[1])
            assert await states(client) == before


async def test_parents_that_go_and_come_back_at_once(client: Client) -> None:
    """Each marks what it takes along, whichever is first."""
    one, other = await client.admin(), await client.admin()
    ana, luis = await client.user(), await client.user()
    post_id = (await ana.write())["id"]
    for _ in range(4):
        await reply(ana, post_id)
        await reply(luis, post_id)
    post, replier = f"/posts/{post_id}", f"/users/{luis.id}"
    before = await states(client)
    for _ in range(4):
        await asyncio.gather(delete(one, post), delete(other, replier))
        assert await live(client) == set()
        await asyncio.gather(restore(one, post), restore(other, replier))
        assert await states(client) == before


async def test_a_post_that_was_deleted_before_its_author_keeps_its_replies(
    client: Client,
) -> None:
    admin, ana, luis = await client.admin(), await client.user(), await client.user()
    post_id = (await ana.write())["id"]
    await reply(luis, post_id)
    await delete(ana, f"/posts/{post_id}")
    before = await states(client)
    await delete(admin, f"/users/{ana.id}")
    await restore(admin, f"/users/{ana.id}")
    assert await states(client) == before
    await restore(admin, f"/posts/{post_id}")
    assert len(await live(client)) == 1


async def test_purging_takes_replies_along(client: Client) -> None:
    admin, ana, luis = await client.admin(), await client.user(), await client.user()
    post_id = (await ana.write())["id"]
    await reply(luis, post_id)
    other = (await luis.write())["id"]
    alone, kept = await reply(luis, other), await reply(luis, other)
    assert (await luis.delete(f"/posts/{other}/replies/{alone}")).status_code == 204
    await delete(admin, f"/users/{ana.id}")
    async with client.database.begin() as session:
        for model in (User, Post, Reply):
            old = update(model).where(model.deleted_at.is_not(None)).values(deleted_at=utc_now())
            await session.execute(old, execution_options=ALL | {"synchronize_session": False})
    done = await empty(client.database, before=utc_now())
    assert (done["users"], done["posts"], done["replies"]) == (1, 1, 2)
    assert set(await states(client)) == {kept}


async def test_its_migrations_are_numbered_for_themselves(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = await migrations.revision_of(client.database)
    assert found.found == found.head, "ours are as far as before"
    assert (await client.get("/health/ready")).status_code == 200
    monkeypatch.setenv("DATABASE_URL", client.app.state.settings.database_url)
    monkeypatch.setenv("DATA_DIR", str(tmp_path))
    await asyncio.to_thread(command.check, migrations.config(MIGRATIONS))
    await asyncio.to_thread(command.downgrade, migrations.config(MIGRATIONS), "base")
    await asyncio.to_thread(command.upgrade, migrations.config(MIGRATIONS), "head")
    assert (await client.user()).id
