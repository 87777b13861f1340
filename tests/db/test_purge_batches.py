"""The purge in batches: interrupted and raced; no live row is deleted."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from app.db import retention
from app.db.engine import Database
from app.db.retention import Limits, Rule
from app.models.base import PURGE_STARTED
from app.models.posts import Post
from app.models.users import User
from app.tasks import retention as purging
from tests.support.client import Client, Person
from tests.support.purging import (
    EVERYTHING,
    LIMIT,
    LONG_AGO,
    belongings,
    bury,
    busy,
    count,
    empty,
    in_small_batches,
)


class Killed(BaseException):
    """As kill -9: nothing may catch it, and nothing is put right after it."""


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    in_small_batches(monkeypatch)


def hooked(monkeypatch: pytest.MonkeyPatch, before: Callable[[int], Awaitable[None]]) -> list[None]:
    """Call something before each batch, with its number from 0; the batches so far."""
    batches: list[None] = []
    run = Database.run

    async def hooked_run(self: Database, work: Callable[[AsyncSession], Awaitable[Any]]) -> Any:
        await before(len(batches))
        batches.append(None)
        return await run(self, work)

    monkeypatch.setattr(Database, "run", hooked_run)
    return batches


# --- Cut off ---------------------------------------------------------------------------------


async def test_a_purge_that_is_killed_anywhere_is_finished_by_the_next(client: Client) -> None:
    """After the first batch, after the second, …: until one is not killed any more."""
    admin, live = await client.admin(), await busy(client, "Live")
    dead = [await busy(client, name) for name in ("Ana", "Eva")]
    for person in dead:
        assert (await admin.delete(f"/users/{person.id}")).status_code == 204
    await bury(client.database)
    before = await belongings(client.database, live)
    kills = 0
    while (done := await killed_after(client.database, kills % 7 + 1)) is None:
        kills += 1
    assert kills > 3
    assert not done.failures
    for person in dead:
        assert set((await belongings(client.database, person)).values()) == {0}
        assert await count(client.database, User, User.id == person.id) == 0
    # Their post in the trash goes by itself.
    tagged = {name: before[name] - 1 for name in ("posts", "post_tags")}
    assert await belongings(client.database, live) == before | tagged
    assert (await live.get("/users/me")).status_code == 200
    again = await purging.delete_expired(client.database, retention.rules(), Limits(LIMIT))
    assert set(again.counts.values()) == {0}


async def killed_after(database: Database, batches: int) -> purging.Purged | None:
    """Purge; None if it came to a batch with this number, and was killed there."""

    async def kill(batch: int) -> None:
        if batch == batches:
            raise Killed

    with pytest.MonkeyPatch.context() as patch:
        hooked(patch, kill)
        try:
            return await purging.delete_expired(database, retention.rules(), Limits(LIMIT))
        except Killed:
            return None


async def test_a_user_whose_purge_has_begun_is_gone_for_everybody(client: Client) -> None:
    """Else they would come back without what has been deleted already."""
    admin, ana = await client.admin(), await busy(client, "Ana")
    assert (await admin.delete(f"/users/{ana.id}")).status_code == 204
    await bury(client.database)
    [post_id, *_] = await posts_of(client.database, ana)
    assert await killed_after(client.database, 1) is None
    assert await count(client.database, User, User.deleted_at == PURGE_STARTED) == 1
    assert (await admin.post(f"/users/{ana.id}/restore")).status_code == 404
    assert (await admin.post(f"/posts/{post_id}/restore")).status_code == 409
    assert (await admin.get("/users?deleted=true")).json()["items"] == []
    assert (await empty(client.database, before=LIMIT))["users"] == 1


async def posts_of(database: Database, person: Person) -> list[int]:
    async with database.begin(readonly=True) as session:
        found = select(Post.id).where(Post.author_id == person.id).order_by(Post.id)
        return [*await session.scalars(found, execution_options=EVERYTHING)]


# --- Raced -----------------------------------------------------------------------------------


async def test_what_is_restored_after_the_look_stays(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A post with its tags; a user with all that is theirs, and what went along with them."""
    admin, ana, eva = await client.admin(), await busy(client, "Ana"), await client.user("Eva")
    post = await eva.write(tags=["hers"])
    await eva.delete(f"/posts/{post['id']}")
    assert (await admin.delete(f"/users/{ana.id}")).status_code == 204
    await bury(client.database)
    before = await belongings(client.database, ana)

    async def restore(batch: int) -> None:
        if not batch:
            assert (await eva.post(f"/posts/{post['id']}/restore")).status_code == 200
            assert (await admin.post(f"/users/{ana.id}/restore")).status_code == 200

    batches = hooked(monkeypatch, restore)
    done = await purging.delete_expired(client.database, retention.trash_rules(), Limits(LIMIT))
    assert batches
    # The one that was in the trash before its author was.
    assert done.counts == Counter(dict.fromkeys(done.counts, 0) | {"posts": 1})
    tagged = {name: before[name] - 1 for name in ("posts", "post_tags")}
    assert await belongings(client.database, ana) == before | tagged
    assert (await client.get(f"/posts/{post['id']}")).json()["tags"] == ["hers"]


async def test_posts_wait_for_the_author_they_went_to_the_trash_with(client: Client) -> None:
    """However old: who restores the author has them back."""
    admin, ana = await client.admin(), await client.user()
    post = await ana.write()
    assert (await admin.delete(f"/users/{ana.id}")).status_code == 204
    await bury(client.database, users=False)
    assert set((await empty(client.database, before=LIMIT)).values()) == {0}
    assert (await admin.post(f"/users/{ana.id}/restore")).status_code == 200
    assert (await client.get(f"/posts/{post['id']}")).status_code == 200


@pytest.mark.parametrize("database_url", ["mariadb", "postgresql"], indirect=True)
async def test_what_a_request_holds_is_passed_over(client: Client, other_process: Database) -> None:
    """Until the next purge; nobody waits for anybody."""
    eva = await client.user("Eva")
    held, *free = [(await eva.write())["id"] for _ in range(5)]
    for post_id in (held, *free):
        await eva.delete(f"/posts/{post_id}")
    await bury(client.database)
    async with other_process.begin() as session:
        locking = select(Post.id).where(Post.id == held).with_for_update()
        await session.execute(locking, execution_options=EVERYTHING)
        assert (await empty(client.database, before=LIMIT))["posts"] == len(free)
    assert (await empty(client.database, before=LIMIT))["posts"] == 1


async def test_two_purges_and_restores_at_once(client: Client) -> None:
    """A post whose restore succeeded can be read, and both purges end."""
    eva = await client.user("Eva")
    ids = [(await eva.write(tags=["t"]))["id"] for _ in range(12)]
    for post_id in ids:
        await eva.delete(f"/posts/{post_id}")
    await bury(client.database)
    restoring = asyncio.gather(*(eva.post(f"/posts/{post_id}/restore") for post_id in ids[::-2]))
    purges = asyncio.gather(*(empty(client.database, before=LIMIT) for _ in range(2)))
    answers, (first, second) = await restoring, await purges
    restored = {answer.json()["id"] for answer in answers if answer.status_code == 200}
    assert {answer.status_code for answer in answers} <= {200, 404}
    assert set(await posts_of(client.database, eva)) == restored
    assert first["posts"] + second["posts"] + len(restored) == len(ids)


async def test_a_look_that_finds_nothing_but_what_is_held_is_the_last(client: Client) -> None:
    """As when more rows than a look finds, of one moment, are held."""
    looks: list[Any] = []

    class Held(Rule):
        async def look(self, session: AsyncSession, limits: Limits, start: Any) -> retention.Found:
            looks.append(start)
            return await super().look(session, limits, start)

        async def delete(self, *_: Any) -> int:
            return 0

    eva = await client.user("Eva")
    for _ in range(4):
        await eva.delete(f"/posts/{(await eva.write())['id']}")
    await bury(client.database)
    rule = Held(Post, "posts", Post.deleted_at)
    done = await purging.delete_expired(client.database, [rule], Limits(LIMIT))
    assert done.counts["posts"] == 0
    assert looks == [None, LONG_AGO]
