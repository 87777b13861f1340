"""Emptying the trash: for good, in order, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import select, update

from app.crud import trash
from app.models.base import INCLUDE_DELETED, utc_now
from app.models.outbox import Mail
from app.models.posts import Post
from app.models.roles import Role
from app.models.sessions import LoginSession
from app.models.tags import PostTag
from app.models.users import User, UserRole
from tests.support.client import Client

EVERYTHING: dict[str, Any] = {INCLUDE_DELETED: True}
LONG_AGO = timedelta(days=40)
LIMIT = timedelta(days=30)
NOTHING = {"mails": 0, "posts": 0, "users": 0, "roles": 0, "sessions": 0}


async def age(client: Client, *, posts: Sequence[int] = (), users: Sequence[int] = ()) -> None:
    """Let rows in the trash have lain there for long."""
    async with client.database.begin() as session:
        for model, ids in ((Post, posts), (User, users)):
            changed = update(model).where(model.id.in_(ids), model.deleted_at.is_not(None))
            changed = changed.values(deleted_at=utc_now() - LONG_AGO)
            await session.execute(changed, execution_options=EVERYTHING)


async def purge(client: Client, before: datetime | None = None) -> dict[str, int]:
    async with client.database.begin() as session:
        return await trash.purge(session, before=before or utc_now() - LIMIT)


async def left(client: Client, model: Any) -> set[int]:
    async with client.database.begin(readonly=True) as session:
        return set(await session.scalars(select(model.id), execution_options=EVERYTHING))


async def test_what_has_lain_long_enough_is_gone_for_good(client: Client) -> None:
    ana = await client.user()
    live, old, recent = [(await ana.write(tags=["t"]))["id"] for _ in range(3)]
    for post_id in (old, recent):
        await ana.delete(f"/posts/{post_id}")
    await age(client, posts=[old, live])
    assert await purge(client) == NOTHING | {"posts": 1}
    assert await left(client, Post) == {live, recent}
    assert (await ana.post(f"/posts/{old}/restore")).status_code == 404
    assert (await ana.post(f"/posts/{recent}/restore")).status_code == 200
    assert (await client.get(f"/posts/{live}")).status_code == 200
    async with client.database.begin(readonly=True) as session:
        assert set(await session.scalars(select(PostTag.post_id))) == {live, recent}
    assert await purge(client) == NOTHING


async def test_the_moment_itself_decides(client: Client) -> None:
    ana = await client.user()
    post = await ana.write()
    await ana.delete(f"/posts/{post['id']}")
    async with client.database.begin(readonly=True) as session:
        moment = await session.scalar(select(Post.deleted_at), execution_options=EVERYTHING)
    assert moment is not None
    assert (await purge(client, moment))["posts"] == 0
    assert (await purge(client, moment + timedelta(microseconds=1)))["posts"] == 1


async def test_a_user_goes_with_everything_that_was_theirs(client: Client) -> None:
    """Posts go before their author, also those that went to the trash some other day."""
    admin = await client.admin()
    ana, luis, eva = [await client.user(name) for name in ("Ana", "Luis", "Eva")]
    mine = [(await ana.write())["id"], (await ana.write(status="draft"))["id"]]
    await ana.delete(f"/posts/{mine[0]}")
    others = [(await person.write())["id"] for person in (luis, eva)]
    for person in (ana, luis):
        await admin.delete(f"/users/{person.id}")
    await age(client, users=[ana.id, eva.id])
    assert await purge(client) == NOTHING | {"mails": 1, "posts": 2, "users": 1}
    assert await left(client, Post) == set(others)
    assert await left(client, User) == {admin.id, luis.id, eva.id}
    async with client.database.begin(readonly=True) as session:
        for column in (LoginSession.user_id, UserRole.user_id):
            assert ana.id not in set(await session.scalars(select(column)))
        mails = select(Mail).where(Mail.recipient == ana.email)
        assert not list(await session.scalars(mails))
    assert (await admin.post(f"/users/{ana.id}/restore")).status_code == 404
    assert (await admin.post(f"/users/{luis.id}/restore")).status_code == 200
    assert (await client.get(f"/posts/{others[0]}")).status_code == 200
    assert (await eva.get("/users/me")).status_code == 200
    again = await client.register(email=ana.email)
    assert again["id"] > ana.id, "an id is never given out twice"


async def test_deleted_roles_are_emptied_out_too(client: Client) -> None:
    admin = await client.admin()
    ids = [
        (await admin.post("/roles", {"name": name, "permissions": ["users:read"]})).json()["id"]
        for name in ("live", "dead")
    ]
    await admin.delete(f"/roles/{ids[1]}")
    assert (await purge(client, utc_now() + timedelta(days=1)))["roles"] == 1
    assert ids[0] in await left(client, Role)
    assert ids[1] not in await left(client, Role)


async def test_an_empty_trash_is_left_alone(client: Client) -> None:
    """However far ahead the moment: what lives stays."""
    admin, ana = await client.admin(), await client.user()
    await ana.write(tags=["t"])
    before = [await left(client, model) for model in (User, Post, Role, LoginSession)]
    tomorrow = utc_now() + timedelta(days=1)
    assert await purge(client, tomorrow) == NOTHING
    assert [await left(client, model) for model in (User, Post, Role, LoginSession)] == before
    assert (await admin.get("/users")).json()["total"] == 2


async def test_sessions_that_ended_long_ago_are_forgotten(client: Client) -> None:
    ana = await client.user()
    async with client.database.begin() as session:
        old = LoginSession(user_id=ana.id, last_used_at=utc_now(), expires_at=utc_now() - LONG_AGO)
        session.add(old)
    assert await purge(client) == NOTHING | {"sessions": 1}
    assert (await ana.get("/users/me")).status_code == 200
