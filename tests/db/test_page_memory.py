"""Cached totals and page positions never change what a page shows."""

from __future__ import annotations

import random
import re
from typing import Any

import pytest
from sqlalchemy import insert, update

from app.crud import sessions
from app.db import pagination, totals
from app.db.engine import Database
from app.db.pagination import Paginator
from app.models.base import utc_now
from app.models.posts import Post
from tests.support import sql
from tests.support.client import Client, Person
from tests.support.clock import Clock, clock_in
from tests.support.every_listing import (
    ListingOperation,
    every_listing,
    fill_listings,
    listing_ids,
    make_ties,
)
from tests.support.listings import page, walk

PROMISED_SECONDS = 1.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return clock_in(monkeypatch, totals)


@pytest.fixture
def long_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is forgotten because of the time alone."""
    monkeypatch.setattr(totals, "TOTAL_CACHE_SECONDS", 3_600)
    # What is live is asked for by the second.
    now = utc_now()
    monkeypatch.setattr(sessions, "utc_now", lambda: now)


async def with_rows(client: Client, number: int) -> tuple[Person, list[ListingOperation]]:
    """An admin, and so many rows in every listing, with ties in what they are sorted by."""
    admin = await client.admin()
    ids = await listing_ids(admin)
    await fill_listings(admin, ids, number)
    for title in ("same", "same", "Same", "same"):
        await admin.write(title, tags=["shared"])
    await make_ties(admin)
    return admin, every_listing(admin, ids)


def asked(found: list[dict[str, Any]]) -> list[Any]:
    """What tells items of any listing apart, in their order."""
    return [item.get("id", item.get("name")) for item in found]


# --- Where pages begin ---------------------------------------------------------------------------


@pytest.mark.usefixtures("long_memory")
@pytest.mark.parametrize("far", [pagination._FAR, 0])
async def test_a_page_asked_for_again_shows_the_same_rows(
    client: Client, monkeypatch: pytest.MonkeyPatch, far: int
) -> None:
    """Pages found by their number, from the nearer end, and by where they were found to begin: in
    any order of asking, of any size, upwards and downwards, with equal keys."""
    monkeypatch.setattr(pagination, "_FAR", far)
    admin, every = await with_rows(client, 7)
    chance = random.Random(11)
    for listing in every:
        for sort in listing.sorts:
            whole = await page(admin, listing.path, sort=sort, page_size=100)
            for size in (1, 3):
                numbers = list(range(1, -(-whole["total"] // size) + 2))
                wanted = [whole["items"][(n - 1) * size : n * size] for n in numbers]
                for _ in range(3):
                    chance.shuffle(numbers)
                    for n in numbers:
                        params = {"sort": sort, "page_size": size, "page": n}
                        found = await page(admin, listing.path, **params)
                        assert found["items"] == wanted[n - 1], (listing.path, params)
                        assert found["total"] == whole["total"]


@pytest.mark.usefixtures("long_memory")
async def test_a_page_asked_for_again_skips_over_nothing(client: Client) -> None:
    """Neither it nor the one behind it, and nothing is counted: page 450 costs what page 1 does."""
    admin, every = await with_rows(client, 7)
    for listing in (each for each in every if not each.path.endswith("/permissions")):
        await page(admin, listing.path, page_size=2, page=2)
        for number in (2, 3):
            with sql.watched(admin.database) as sent:
                await page(admin, listing.path, page_size=2, page=number)
            *parent, rows = [
                each.text
                for each in sent
                if "JOIN sessions ON sessions.user_id = users.id" not in each.text
            ]
            assert re.search("[<>]=", rows), "from where the page begins"
            assert len(parent) <= listing.is_nested, "it is looked at first"


async def test_a_page_in_the_latter_half_passes_over_what_is_behind_it(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So the last page costs what the first one does."""
    monkeypatch.setattr(pagination, "_FAR", 0)
    ana = await client.user()
    for number in range(9):
        await ana.write(f"Post {number}")
    for number, order in ((2, "ASC"), (5, "DESC"), (4, "DESC"), (6, "ASC")):
        with sql.watched(client.database) as sent:
            await page(client, "/posts", sort="title", page_size=2, page=number)
        (rows,) = [each.text for each in sent if "sort_key" in each.text]
        assert re.search(rf"ORDER BY posts.title {order}, posts.id {order}", rows), number


@pytest.mark.parametrize("sort", ["-created_at", "title"])
async def test_old_totals_hide_no_rows(
    client: Client, monkeypatch: pytest.MonkeyPatch, sort: str
) -> None:
    """A count that takes long is remembered while rows come: pages are found by it no more."""
    monkeypatch.setattr(pagination, "_FAR", 0)
    monkeypatch.setattr(totals, "_COSTLY_SECONDS", -1)
    monkeypatch.setattr(totals, "_COUNTING_SHARE", 1e-9)
    # Of this test alone: what takes long is remembered for a minute.
    monkeypatch.setattr(client.app.state.paginator.totals, "_entries", {})
    ana = await client.user()
    asked = {"sort": sort, "page_size": 2}
    for number in range(8):
        await ana.write(f"Post {number}")
        await page(client, "/posts", **asked)
    for number in range(8, 11):
        await ana.write(f"Post {number}")
    found = [await page(client, "/posts", **asked, page=number) for number in range(1, 7)]
    shown = [post["title"] for each in found for post in each["items"]]
    assert len(shown) == len({*shown}) == 11


@pytest.mark.usefixtures("long_memory")
async def test_pages_of_a_search_are_remembered_apart(client: Client) -> None:
    ana = await client.user()
    for number in range(8):
        await ana.write(f"Post {number}", tags=["even" if number % 2 == 0 else "odd"])
    wanted = {"even": ["Post 4", "Post 6"], "odd": ["Post 5", "Post 7"]}
    for tag in ("even", "odd", "even", "odd"):
        found = await page(client, "/posts", tag=tag, sort="title", page_size=2, page=2)
        assert [post["title"] for post in found["items"]] == wanted[tag]
        assert found["total"] == 4


# --- Written by this process ---------------------------------------------------------------------


async def assert_exact(admin: Person, every: list[ListingOperation], after: str) -> None:
    """The first page and the total of each listing are what walking through it finds."""
    for listing in every:
        found = await page(admin, listing.path, page_size=100)
        # By cursor, which counts nothing.
        first = await page(admin, listing.path, page_size=1)
        rest = [
            item
            async for items in walk(admin, listing.path, cursor=first["next_cursor"], page_size=50)
            for item in items
        ]
        assert found["total"] == len(rest) + 1, (listing.path, after)
        assert asked(found["items"]) == asked(first["items"]) + asked(rest), (listing.path, after)


@pytest.mark.usefixtures("long_memory")
async def test_totals_are_exact_at_the_next_request(client: Client) -> None:
    admin = await client.admin()
    bea = await client.register("Bea")
    ids = await listing_ids(admin)
    await fill_listings(admin, ids, 3)
    post = f"/posts/{(await admin.write('First', tags=['first', 'shared']))['id']}"
    await admin.write("Second", tags=["shared"])
    every = every_listing(admin, ids)
    role = (await admin.post("/roles", {"name": "made", "permissions": ["users:read"]})).json()
    writes: list[tuple[str, str, object]] = [
        ("POST", "/posts", {"title": "x", "content": "", "status": "published", "tags": ["t"]}),
        ("PATCH", post, {"tags": ["shared"]}),
        ("PATCH", post, {"tags": ["first", "new"], "title": "Zzz"}),
        ("DELETE", f"{post}/publication", None),
        ("PUT", f"{post}/publication", None),
        ("DELETE", post, None),
        ("POST", f"{post}/restore", None),
        ("POST", "/users", {"email": "new@example.com", "name": "New"}),
        ("POST", "/roles", {"name": "another"}),
        ("PUT", f"/users/{admin.id}/roles/{role['id']}", None),
        ("DELETE", f"/users/{admin.id}/roles/{role['id']}", None),
        ("DELETE", f"/roles/{role['id']}", None),
        ("DELETE", f"/users/{bea['id']}", None),
        ("POST", f"/users/{bea['id']}/restore", None),
    ]
    await assert_exact(admin, every, "nothing")
    for method, path, body in writes:
        answer = await admin.request(method, path, json=body)
        assert answer.is_success, answer.text
        await assert_exact(admin, every, f"{method} {path} {body}")
    await client.register("Newcomer")
    await assert_exact(admin, every, "a registration")


@pytest.mark.usefixtures("long_memory")
async def test_drafts_count_for_their_author_alone(client: Client) -> None:
    """Of a listing whose published posts are counted once for everybody."""
    ana, bea, mod = await client.user("Ana"), await client.user("Bea"), await client.moderator()
    for status in ("published", "draft", "draft"):
        await ana.write(status=status, tags=["t"])
    await bea.write(status="draft", tags=["t"])

    async def totals(**params: object) -> list[int]:
        each = [client, ana, bea, mod]
        return [int((await page(who, "/posts", **params))["total"]) for who in each]

    for _ in range(2):
        assert await totals() == [1, 3, 2, 4]
        assert await totals(tag="t", page_size=1) == [1, 3, 2, 4]
        assert await totals(status="draft") == [0, 2, 1, 3]
        assert await totals(author_id=bea.id) == [0, 0, 1, 1]
    await bea.write(status="draft", tags=["t"])
    assert await totals() == [1, 3, 3, 5]


# --- Written by another process ------------------------------------------------------------------


async def write_elsewhere(other: Database, author: Person, *titles: str) -> None:
    """Posts by the way of another process."""
    now = utc_now()
    rows = [
        {"author_id": author.id, "title": title, "content": "-"}
        | {"status": "published", "published_at": now}
        for title in titles
    ]
    async with other.begin() as session:
        await session.execute(insert(Post), rows)


async def trash_elsewhere(other: Database, *titles: str) -> None:
    async with other.begin() as session:
        trashed = update(Post).where(Post.title.in_(titles))
        await session.execute(trashed.values(deleted_at=utc_now()))


def assert_consistent(found: dict[str, Any]) -> None:
    """What an envelope says is true of the items in it."""
    number, size = found["page"], found["page_size"]
    assert len(found["items"]) == max(0, min(size, found["total"] - (number - 1) * size)), found
    assert found["total_pages"] == -(-found["total"] // size)
    assert found["has_next"] == (number < found["total_pages"])


async def test_what_another_process_writes_is_there_within_a_second(
    client: Client, other_process: Database, clock: Clock
) -> None:
    ana = await client.user()
    for number in range(5):
        await ana.write(f"Post {number}")

    async def shown(number: int) -> tuple[int, list[str]]:
        found = await page(client, "/posts", sort="title", page_size=2, page=number)
        assert_consistent(found)
        return found["total"], [post["title"] for post in found["items"]]

    everything = {number: await shown(number) for number in (1, 2, 3)}
    assert everything[3] == (5, ["Post 4"])
    await write_elsewhere(other_process, ana, "A post", "Post 5", "Post 6")
    clock.ahead += PROMISED_SECONDS
    assert [await shown(number) for number in (1, 2, 3, 4, 5)] == [
        (8, ["A post", "Post 0"]),
        (8, ["Post 1", "Post 2"]),
        (8, ["Post 3", "Post 4"]),
        (8, ["Post 5", "Post 6"]),
        (8, []),
    ]
    await trash_elsewhere(other_process, "Post 0", "Post 3")
    clock.ahead += PROMISED_SECONDS
    assert [await shown(number) for number in (1, 2, 3, 4)] == [
        (6, ["A post", "Post 1"]),
        (6, ["Post 2", "Post 4"]),
        (6, ["Post 5", "Post 6"]),
        (6, []),
    ]


@pytest.mark.usefixtures("long_memory")
async def test_a_total_is_remembered_meanwhile(client: Client, other_process: Database) -> None:
    """What the second is for: to count costs more than all the rest."""
    ana = await client.user()
    for number in range(4):
        await ana.write(f"Post {number}")
    assert (await page(client, "/posts", page_size=2))["total"] == 4
    await write_elsewhere(other_process, ana, "Post 4")
    assert (await page(client, "/posts", page_size=2))["total"] == 4


@pytest.mark.usefixtures("long_memory")
@pytest.mark.parametrize("page_size", [3, 20])
async def test_the_newest_are_shown_at_once_in_every_process(
    client: Client, other_process: Database, page_size: int
) -> None:
    """Only how many there are may take a second; it never contradicts what is shown."""
    ana = await client.user()
    for number in range(5):
        await ana.write(f"Post {number}")
    for title in ("Newer", "Newest"):
        await page(client, "/posts", page_size=page_size)
        await write_elsewhere(other_process, ana, title)
        found = await page(client, "/posts", page_size=page_size)
        assert found["items"][0]["title"] == title
        assert_consistent(found)


@pytest.mark.parametrize("far", [pagination._FAR, 0])
@pytest.mark.parametrize("sort", ["title", "-created_at"])
async def test_a_last_page_is_never_empty_because_of_what_was_remembered(
    client: Client,
    other_process: Database,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
    sort: str,
    far: int,
) -> None:
    """Where a page begins was learned before another process wrote, the total after it."""
    monkeypatch.setattr(pagination, "_FAR", far)
    ana = await client.user()
    for number in range(4):
        await ana.write(f"Post {number}")
    await page(client, "/posts", page_size=2, sort="updated_at")
    clock.ahead = 0.5  # and less than another half on a busy machine
    await page(client, "/posts", page_size=2, page=2, sort=sort)
    await write_elsewhere(other_process, ana, "A post")
    clock.ahead = 1.2
    found = await page(client, "/posts", page_size=2, page=3, sort=sort)
    assert_consistent(found)
    assert found["total"] == 5


@pytest.mark.usefixtures("long_memory")
@pytest.mark.parametrize("sort", ["title", "-title"])
async def test_rows_that_went_elsewhere_are_not_shown_nor_counted(
    client: Client, other_process: Database, sort: str
) -> None:
    """At once, where the page shows that they are missing."""
    ana = await client.user()
    for number in range(5):
        await ana.write(f"Post {number}")
    for number in (1, 2, 3, 2, 1):
        await page(client, "/posts", sort=sort, page_size=2, page=number)
    await trash_elsewhere(other_process, "Post 0", "Post 2", "Post 4")
    for number in (3, 1, 2, 3, 2):
        found = await page(client, "/posts", sort=sort, page_size=2, page=number)
        titles = {post["title"] for post in found["items"]}
        assert titles <= {"Post 1", "Post 3"}
        assert_consistent(found)
        assert found["total"] == 2


# --- Bounds --------------------------------------------------------------------------------------


@pytest.mark.usefixtures("long_memory")
async def test_what_is_remembered_is_bounded(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(totals, "_MAX_CACHED", 3)
    monkeypatch.setattr(pagination, "_MAX_STARTS", 4)
    ana = await client.user()
    for number in range(9):
        await ana.write(f"Post {number}", tags=[f"tag {number}"])
    memory: Paginator = client.app.state.paginator
    for with_tags in (False, True):
        for number in range(9):
            found = await page(client, "/posts", page_size=1, page=number + 1, sort="title")
            assert [post["title"] for post in found["items"]] == [f"Post {number}"]
            if with_tags:
                assert (await page(client, "/posts", tag=f"tag {number}"))["total"] == 1
            assert len(memory.totals._entries) <= 3
            assert len(memory._starts) <= 3
            assert all(len(each.value) <= 5 for each in memory._starts.values())
