"""Counts of tags are right after any change of posts and authors, or repaired."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from functools import partial

import httpx2
import pytest
from sqlalchemy import insert, select, text, update

from app.cli import seeding
from app.crud import tags
from app.db.engine import Database
from app.models.tags import MAX_TAGS, Tag
from app.tasks import retention as purging
from tests.conftest import make_settings
from tests.support import sql
from tests.support.client import Client, Person
from tests.support.tag_counts import assert_right, kept

POST = {"title": "A title", "content": "Some content.", "status": "published"}
TAGS = ["a", "b", "c", "d", "e"]


async def repaired(client: Client) -> int:
    given = client.app.state.settings
    settings = make_settings(given.database_url, given.data_dir)
    return (await purging.purge_deleted(client.database, settings)).repaired["counts of tags"]


async def set_counts(database: Database, **counts: int) -> None:
    """Write counts past the app, as a version that does not know them leaves them wrong."""
    async with database.begin() as session:
        for name, count in counts.items():
            await session.execute(update(Tag).where(Tag.name == name).values(post_count=count))


# --- Every transition ----------------------------------------------------------------------------


class Life:
    """An author who does anything that can be done to posts, and is deleted and restored."""

    def __init__(self, admin: Person, author: Person, chance: random.Random) -> None:
        self.admin = admin
        self.author = author
        self.chance = chance
        self.posts: list[str] = []
        self.acts: list[Callable[[], Awaitable[httpx2.Response]]] = [
            *(self.write, self.write, self.retag, self.retag, self.edit),
            *(self.publish, self.unpublish, self.delete, self.restore, self.leave_and_return),
        ]

    async def act(self) -> None:
        act = self.chance.choice(self.acts) if self.posts else self.write
        response = await act()
        assert response.status_code in {200, 201, 204, 404}, response.text

    def tags(self) -> list[str]:
        return self.chance.sample(TAGS, self.chance.randrange(len(TAGS)))

    def status(self) -> str:
        return self.chance.choice(["draft", "published"])

    def post(self) -> str:
        return self.chance.choice(self.posts)

    async def write(self) -> httpx2.Response:
        body = POST | {"status": self.status(), "tags": self.tags()}
        response = await self.author.post("/posts", body)
        self.posts.append(f"/posts/{response.json()['id']}")
        return response

    async def retag(self) -> httpx2.Response:
        return await self.author.patch(self.post(), {"tags": self.tags()})

    async def edit(self) -> httpx2.Response:
        return await self.admin.patch(self.post(), {"tags": self.tags(), "status": self.status()})

    async def publish(self) -> httpx2.Response:
        return await self.author.put(f"{self.post()}/publication")

    async def unpublish(self) -> httpx2.Response:
        return await self.author.delete(f"{self.post()}/publication")

    async def delete(self) -> httpx2.Response:
        return await self.author.delete(self.post())

    async def restore(self) -> httpx2.Response:
        return await self.author.post(f"{self.post()}/restore")

    async def leave_and_return(self) -> httpx2.Response:
        path = f"/users/{self.author.id}"
        assert (await self.admin.delete(path)).status_code == 204
        await assert_right(self.admin.database)
        response = await self.admin.post(f"{path}/restore")
        token = await self.author.login(self.author.email)
        self.author.headers["Authorization"] = f"Bearer {token}"
        return response


@pytest.mark.parametrize("seed", [1, 2])
async def test_whatever_happens_the_counts_are_right(
    client: Client, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Random operations; after each, every count is what SQL counts."""
    monkeypatch.setattr(tags, "_MANY", MAX_TAGS)
    chance = random.Random(seed)
    admin = await client.admin()
    lives = [Life(admin, await client.user(), chance) for _ in range(2)]
    most = 0
    for _ in range(60):
        await chance.choice(lives).act()
        most = max(most, *(await assert_right(client.database)).values(), 0)
    assert most > 1, "there was something to count"
    assert await repaired(client) == 0


async def test_all_tags_of_a_post_can_be_replaced_at_once(client: Client) -> None:
    """More than one post has, in one change."""
    ana = await client.user()
    first, second = ([f"{letter}{n}" for n in range(MAX_TAGS)] for letter in "ab")
    post = await ana.write(tags=first)
    await ana.patch(f"/posts/{post['id']}", {"tags": second})
    assert await assert_right(client.database) == dict.fromkeys(first, 0) | dict.fromkeys(second, 1)


async def test_an_author_with_many_tags_leaves_and_returns(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More tags than are counted, and than are changed, by one statement."""
    monkeypatch.setattr(tags, "_MANY", MAX_TAGS)
    ana, admin = await client.user(), await client.admin()
    for start in (0, 10, 20, 25):
        await ana.write(tags=[f"t{n:02}" for n in range(start, start + MAX_TAGS)])
    trashed = await ana.write(tags=["t00"])
    await ana.delete(f"/posts/{trashed['id']}")
    before = await assert_right(client.database)
    assert len(before) == 45
    await admin.delete(f"/users/{ana.id}")
    assert set((await assert_right(client.database)).values()) == {0}
    await admin.post(f"/users/{ana.id}/restore")
    assert await assert_right(client.database) == before


async def test_seeded_posts_are_counted(database: Database) -> None:
    await seeding.seed(database, users=3, posts=60, progress=lambda _: None)
    assert sum((await assert_right(database)).values()) > 60


async def test_a_post_without_tags_pays_nothing(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    ana = await client.user()
    for name in ("get_or_create", "link", "adjust_locked_counts", "lock_and_adjust_counts"):
        monkeypatch.setattr(tags, name, None)
    post = await ana.write()
    path = f"/posts/{post['id']}"
    assert (await ana.delete(f"{path}/publication")).status_code == 200
    assert (await ana.put(f"{path}/publication")).status_code == 200
    assert (await ana.delete(path)).status_code == 204


# --- The listing ---------------------------------------------------------------------------------


async def test_a_listing_is_read_from_an_index(client: Client) -> None:
    """No sort, and no look at posts, however many tags there are."""
    async with client.database.begin() as session:
        rows = [{"name": f"tag {n:04}", "post_count": n % 7} for n in range(2_000)]
        await session.execute(insert(Tag), rows)
    await sql.gather_statistics(client.database, "tags")
    for sort, index in (
        ("name", "ix_tags_name_id_post_count"),
        ("-name", "ix_tags_name_id_post_count"),
        ("post_count", "ix_tags_post_count_id"),
        ("-post_count", "ix_tags_post_count_id"),
    ):
        with sql.watched(client.database) as sent:
            response = await client.get("/tags", params={"sort": sort, "page_size": 10})
        assert response.json()["total"] == 2_000 - 286
        (rows_of,) = [each for each in sent if "AS page" in each.text and "LIMIT" in each.text]
        assert "post" not in rows_of.text.replace("post_count", "")
        steps = await sql.plan(client.database, rows_of)
        # Names are unique: PostgreSQL may as well go by the index that says so, which has them in
        # the same order.
        names = {index, "uq_tags_name"} if "name" in sort else {index}
        found = next(step for step in steps if any(name in step for name in names))
        assert "filesort" not in found
        before = steps[: steps.index(found)]
        assert client.database.dialect != "sqlite" or not any("TEMP" in step for step in before)


async def test_pages_of_tags_are_whole(client: Client) -> None:
    """Every counted tag once; none with 0."""
    async with client.database.begin() as session:
        rows = [{"name": f"tag {n:03}", "post_count": n % 4} for n in range(40)]
        await session.execute(insert(Tag), rows)
    for sort in ("name", "-post_count"):
        pages = [
            await client.get("/tags", params={"sort": sort, "page": number, "page_size": 9})
            for number in range(1, 5)
        ]
        seen = [tag["name"] for each in pages for tag in each.json()["items"]]
        assert len(seen) == len(set(seen)) == 30


# --- What is wrong is repaired -------------------------------------------------------------------


async def test_counts_never_fall_below_zero(client: Client) -> None:
    """What the version before published was not counted."""
    ana = await client.user()
    one = await ana.write(tags=["a"])
    await ana.write(tags=["a"])
    await set_counts(client.database, a=0)
    await ana.delete(f"/posts/{one['id']}/publication")
    assert await kept(client.database) == {"a": 0}
    assert await repaired(client) == 1
    assert await assert_right(client.database) == {"a": 1}


async def test_wrong_counts_are_repaired_and_no_others(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Too high, too low, and of drafts; in several batches."""
    monkeypatch.setattr(tags, "TAGS_BATCH", 2)
    monkeypatch.setattr(tags, "LINKS_BATCH", 1)
    ana = await client.user()
    await ana.write(tags=["a", "b", "c"])
    await ana.write(tags=["b", "d"])
    await ana.write(tags=["e"], status="draft")
    right = await assert_right(client.database)
    assert await repaired(client) == 0
    await set_counts(client.database, a=7, b=0, e=1)
    assert await repaired(client) == 3
    assert await assert_right(client.database) == right


async def test_a_tag_that_is_gone_or_right_by_now_is_left_alone(client: Client) -> None:
    ana = await client.user()
    await ana.write(tags=["a"])
    async with client.database.begin(readonly=True) as session:
        tag_id = (await session.execute(select(Tag.id))).scalar_one()
    for each in (tag_id, tag_id + 1):
        assert await client.database.run(partial(tags.recount, tag_id=each)) == 0


async def test_the_version_before_makes_tags_that_count_nothing(database: Database) -> None:
    """It does not name the column."""
    async with database.begin() as session:
        await session.execute(text("INSERT INTO tags (name) VALUES ('old')"))
    assert await kept(database) == {"old": 0}
