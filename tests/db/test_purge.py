"""The purge of the trash: permanent, in order, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Column, ForeignKey, Integer, MetaData, Table, select, update

from app.db import retention
from app.models import Base
from app.models.base import INCLUDE_DELETED, utc_now
from app.models.one_time_tokens import OneTimeToken
from app.models.outbox import Mail
from app.models.posts import Post
from app.models.refresh_tokens import RefreshToken
from app.models.roles import Role
from app.models.sessions import LoginSession
from app.models.tags import PostTag
from app.models.users import User, UserRole
from app.tasks import retention as purging
from tests.support.client import Client
from tests.support.purging import empty, other_trash

EVERYTHING: dict[str, Any] = {INCLUDE_DELETED: True}
LONG_AGO = timedelta(days=40)
LIMIT = timedelta(days=30)
NOTHING = dict.fromkeys(
    (
        *("mails", "posts", "users", "roles", "sessions", "refresh tokens", "links"),
        "idempotency keys",
        *other_trash(),
    ),
    0,
)


async def age(client: Client, *, posts: Sequence[int] = (), users: Sequence[int] = ()) -> None:
    """Let rows in the trash have lain there for long."""
    async with client.database.begin() as session:
        for model, ids in ((Post, posts), (User, users)):
            changed = update(model).where(model.id.in_(ids), model.deleted_at.is_not(None))
            changed = changed.values(deleted_at=utc_now() - LONG_AGO)
            await session.execute(changed, execution_options=EVERYTHING)


async def purge(client: Client, before: datetime | None = None) -> dict[str, int]:
    return await empty(client.database, before=before or utc_now() - LIMIT)


async def left(client: Client, model: Any) -> set[int]:
    async with client.database.begin(readonly=True) as session:
        return set(await session.scalars(select(model.id), execution_options=EVERYTHING))


async def left_of(client: Client) -> set[int]:
    """Who has links."""
    async with client.database.begin(readonly=True) as session:
        return set(await session.scalars(select(OneTimeToken.user_id)))


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


async def test_refresh_tokens_that_were_used_long_ago_are_forgotten(client: Client) -> None:
    """The session goes on; with the session go all of them."""
    login = await client.log_in((await client.register())["email"])
    for _ in range(2):
        given = {"refresh_token": login["refresh_token"]}
        login = (await client.post("/auth/refresh", given)).json()
    first, second, unused = sorted(await left(client, RefreshToken))
    async with client.database.begin() as session:
        (await session.get_one(RefreshToken, first)).used_at = utc_now() - LONG_AGO
    assert await purge(client) == NOTHING | {"refresh tokens": 1}
    assert await left(client, RefreshToken) == {second, unused}
    assert (await purge(client, before=utc_now()))["refresh tokens"] == 0, "it tells of a thief yet"
    given = {"refresh_token": login["refresh_token"]}
    assert (await client.post("/auth/refresh", given)).status_code == 200
    async with client.database.begin() as session:
        await session.execute(update(LoginSession).values(expires_at=utc_now() - LONG_AGO))
    assert (await purge(client))["sessions"] == 1
    assert await left(client, RefreshToken) == set()


async def test_links_that_expired_long_ago_are_forgotten(client: Client) -> None:
    ana = await client.user()
    async with client.database.begin() as session:
        expired = {
            OneTimeToken.expires_at: utc_now() - LONG_AGO,
            OneTimeToken.used_at: utc_now() - LONG_AGO,
        }
        await session.execute(update(OneTimeToken).values(expired))
    eva = await client.user("Eva")
    assert await purge(client) == NOTHING | {"links": 1}
    assert ana.id not in (found := await left_of(client))
    assert eva.id in found


async def test_sessions_that_ended_long_ago_are_forgotten(client: Client) -> None:
    ana = await client.user()
    async with client.database.begin() as session:
        old = LoginSession(user_id=ana.id, last_used_at=utc_now(), expires_at=utc_now() - LONG_AGO)
        session.add(old)
    assert await purge(client) == NOTHING | {"sessions": 1}
    assert (await ana.get("/users/me")).status_code == 200


async def test_what_expires_goes_batch_by_batch(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(purging, "MAX_BATCH", 2)
    monkeypatch.setattr(retention, "LOOK", 3)
    people = [await client.user() for _ in range(3)]
    assert len(await left(client, LoginSession)) >= len(people)
    sessions = len(await left(client, LoginSession))
    gone = await purge(client, utc_now() + timedelta(days=400))
    assert gone["sessions"] == sessions
    assert await left(client, LoginSession) == await left(client, RefreshToken) == set()


# --- What purge must not forget --------------------------------------------------------------


def purged() -> list[str]:
    """The tables that purge deletes from, in its order."""
    tables: list[str] = []
    for rule in retention.rules():
        tables += [each.kind.model.__tablename__ for each in retention.dependents(rule.model)]
        tables.append(rule.model.__tablename__)
    return tables


def in_the_way(metadata: MetaData, order: Sequence[str]) -> set[str]:
    """References whose rows keep rows of a purged table from being deleted, and are not first."""
    going = set(order)
    references = [
        (table.name, key.column.table.name, (key.ondelete or "").upper())
        for table in metadata.sorted_tables
        for key in table.foreign_keys
    ]
    # Parents come before children in sorted_tables: one pass finds all that cascades.
    for child, parent, rule in references:
        if parent in going and rule == "CASCADE":
            going.add(child)
    return {
        f"{child} -> {parent}"
        for child, parent, rule in references
        if parent in going and rule not in {"CASCADE", "SET NULL"}
        if child not in order or (parent in order and order.index(child) > order.index(parent))
    }


def test_purge_takes_care_of_every_row_that_would_stop_it() -> None:
    """Else purge fails for good once the first such row is there."""
    assert not in_the_way(Base.metadata, purged()), "delete these in app/db/retention.py, first"


def test_everything_that_can_be_in_the_trash_is_purged() -> None:
    tables = {table.name for table in Base.metadata.sorted_tables if "deleted_at" in table.columns}
    assert len(tables) > 2
    assert tables <= set(purged()), "delete these in app/db/retention.py"


@pytest.mark.parametrize(
    ("ondelete", "order", "found"),
    [
        (None, ["users"], {"notes -> users"}),
        ("RESTRICT", ["users"], {"notes -> users"}),
        ("RESTRICT", ["users", "notes"], {"notes -> users"}),
        ("RESTRICT", ["notes", "users"], set()),
        ("CASCADE", ["users"], {"lines -> notes"}),
        ("SET NULL", ["users"], set()),
        ("RESTRICT", [], set()),
    ],
)
def test_the_search_for_such_rows_finds_them(
    ondelete: str | None, order: list[str], found: set[str]
) -> None:
    made_up = MetaData()
    key = ("id", Integer)
    Table("users", made_up, Column(*key, primary_key=True))
    to_users = ForeignKey("users.id", ondelete=ondelete)
    Table("notes", made_up, Column(*key, primary_key=True), Column("user_id", to_users))
    to_notes = ForeignKey("notes.id", ondelete="NO ACTION" if ondelete == "CASCADE" else "CASCADE")
    Table("lines", made_up, Column(*key, primary_key=True), Column("note_id", to_notes))
    assert in_the_way(made_up, order) == found
