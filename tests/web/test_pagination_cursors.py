"""Cursors lead through a whole listing while it changes."""

from __future__ import annotations

import base64
import random
from typing import Any

import pytest
from sqlalchemy import update

from app.core.exceptions import InvalidCursor
from app.core.keyring import SecretKeys
from app.db.cursors import CursorSigner
from app.models.base import INCLUDE_DELETED, utc_now
from app.models.posts import Post
from app.schemas.posts import PostQuery
from tests.support.client import API, Client, Person
from tests.support.every_listing import (
    ListingOperation,
    delete_listed,
    every_listing,
    fill_listings,
    listing_ids,
    make_ties,
)
from tests.support.listings import page, walk


async def filled(client: Client) -> tuple[Person, dict[str, int]]:
    """An admin who sees every listing filled, with ties in every column that is sorted by, and the
    ids in the listings' paths."""
    admin = await client.admin()
    for number, title in enumerate(("same", "Same", "sáme", "same ", "same", "other", "😀", "😁")):
        status = "draft" if number % 2 else "published"
        await admin.write(title, status=status, tags=[f"tag {number}", "shared"])
    for name in ("Same", "same", "Same", "Sáme"):
        await client.register(name)
    ids = await listing_ids(admin)
    await fill_listings(admin, ids, 3)
    await make_ties(admin)
    return admin, ids


async def concurrency(client: Client) -> tuple[Person, list[ListingOperation]]:
    """The admin, and the listings that are filled."""
    admin, ids = await filled(client)
    return admin, every_listing(admin, ids)


def key(item: dict[str, Any]) -> Any:
    """What identifies an item of any listing."""
    return item["id"] if "id" in item else item["name"]


async def test_cursors_lead_through_every_listing_in_every_order(client: Client) -> None:
    """A42: equal keys, and posts without a moment of publication, are neither lost nor doubled."""
    admin, every = await concurrency(client)
    for listing in every:
        for sort in listing.sorts:
            whole = await page(admin, listing.path, sort=sort, page_size=100)
            expected = [key(item) for item in whole["items"]]
            assert len(expected) > 3
            pages = [items async for items in walk(admin, listing.path, sort=sort, page_size=2)]
            walked = [key(item) for items in pages for item in items]
            assert walked == expected, (listing.path, sort)
            assert [len(items) for items in pages[:-1]] == [2] * (len(pages) - 1)


async def test_an_order_and_its_reverse_are_mirror_images(client: Client) -> None:
    admin, every = await concurrency(client)
    for listing in every:
        for sort in (sort for sort in listing.sorts if sort[0] != "-"):
            up = await page(admin, listing.path, sort=sort, page_size=100)
            down = await page(admin, listing.path, sort=f"-{sort}", page_size=100)
            assert up["items"] == down["items"][::-1], (listing.path, sort)
            moments = [item[sort] for item in up["items"] if sort.endswith("_at")]
            assert moments == sorted(moments, key=lambda moment: moment or "")


async def test_cursors_lead_through_the_trash(client: Client) -> None:
    admin, ids = await filled(client)
    await delete_listed(admin, ids)
    with_trash = [listing for listing in every_listing(admin, ids) if listing.has_trash]
    ours = [f"{API}{path}" for path in ("/users", f"/users/{admin.id}/posts", "/posts")]
    assert {*ours} <= {listing.path for listing in with_trash}
    for listing in with_trash:
        for sort in listing.sorts:
            whole = await page(admin, listing.path, sort=sort, page_size=100, deleted=True)
            pages = walk(admin, listing.path, sort=sort, page_size=3, deleted=True)
            walked = [key(item) async for items in pages for item in items]
            assert walked == [key(item) for item in whole["items"]]
            assert len(walked) > 3


@pytest.mark.parametrize("sort", ["created_at", "-created_at"])
async def test_rows_that_arrive_while_walking_double_or_hide_nothing(
    client: Client, sort: str
) -> None:
    """A42: upwards the new ones come last, downwards they are behind the walker."""
    ana = await client.user()
    there = [(await ana.write(f"Post {number}"))["id"] for number in range(7)]
    arrived: list[int] = []
    walked: list[int] = []
    async for items in walk(client, "/posts", sort=sort, page_size=2):
        walked += [post["id"] for post in items]
        if len(arrived) < 3:
            arrived.append((await ana.write("Newcomer"))["id"])
    assert len(arrived) == 3
    assert walked == (there + arrived if sort == "created_at" else there[::-1])


async def test_rows_that_go_while_walking_hide_nothing(client: Client) -> None:
    """A42: also when the one that goes is the one the cursor stands on."""
    ana = await client.user()
    there = [(await ana.write(f"Post {number}"))["id"] for number in range(6)]
    walked: list[int] = []
    async for items in walk(client, "/posts", sort="created_at", page_size=2):
        walked += [post["id"] for post in items]
        assert (await ana.delete(f"/posts/{walked[-1]}")).status_code == 204
    assert walked == there


async def refused(person: Client, path: str, cursor: str, **params: str) -> bool:
    response = await person.get(path, params={"cursor": cursor} | params)
    if response.status_code == 200:
        return False
    assert response.status_code == 400, response.text
    assert response.json()["code"] == "invalid_cursor"
    return True


async def test_a_cursor_counts_only_unaltered_and_in_its_place(client: Client) -> None:
    admin, every = await concurrency(client)
    first = await page(admin, "/posts", page_size=2, sort="title")
    cursor = first["next_cursor"]
    assert not await refused(admin, "/posts", cursor)
    assert not await refused(admin, "/posts", cursor, sort="title")
    assert not await refused(admin, "/posts", cursor, q="same", page_size="1")
    for sort in ("-title", "created_at", "-created_at"):
        assert await refused(admin, "/posts", cursor, sort=sort)
    for other in every:
        if not other.path.endswith("/posts"):
            assert await refused(admin, other.path, cursor), other.path
    forged = base64.urlsafe_b64encode(b'["posts","title",false,"",0]').rstrip(b"=").decode()
    stranger = CursorSigner(SecretKeys(["another-secret"])).dump("posts", "title", "a", 1)
    others = ["!", "A", "Q", "_"]
    altered = [
        cursor[:index] + other + cursor[index + 1 :]
        for index in (0, 1, 20, 21, 22, 23, 40, len(cursor) - 2, len(cursor) - 1)
        for other in others
        if other != cursor[index]
    ]
    cut = [cursor[:length] for length in (1, 21, 22, 43, len(cursor) - 4, len(cursor) - 1)]
    # Texts that decode to the same bytes are not the cursor either.
    padded = cursor + "=" * (-len(cursor) % 4)
    alike = [padded, cursor + "\n", f" {cursor}", cursor[:-1] + chr(ord(cursor[-1]) + 1)]
    alike += [cursor.replace("-", "+").replace("_", "/")]
    for text in (
        *("", ".", "1", "%00", "ñ", forged, stranger, cursor + "A", cursor * 2, cursor[::-1]),
        *(*altered, *cut, *(each for each in alike if each != cursor)),
    ):
        assert await refused(admin, "/posts", text), text


async def test_a_cursor_shows_nothing_of_the_row_it_stands_at(client: Client) -> None:
    """No title, address or name in it, however it is decoded; and hardly a length."""
    admin = await client.admin()
    for title in ("Secret plan", "Secret plans of old"):
        await admin.write(title)
    for email in ("a@example.com", "hidden.person@example.com"):
        await client.register("Hidden Person", email=email)
    lengths = set()
    for listing in every_listing(admin, await listing_ids(admin)):
        for sort in listing.sorts:
            for params in ({"page_size": 1}, {"page_size": 2}):
                response = await admin.get(listing.path, params={"sort": sort, **params})
                cursor = response.json()["next_cursor"]
                if cursor is None:
                    continue
                raw = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).lower()
                for word in (b"secret", b"example", b"hidden", sort.strip("-").encode(), b"20"):
                    assert len(word) < 4 or word not in raw, (listing.path, sort)
                again = await admin.get(listing.path, params={"sort": sort, **params})
                assert again.json()["next_cursor"] == cursor, "a page that is the same is the same"
                lengths.add(len(raw) % 64)
    assert lengths == {16}, "of the tag; the rest is rounded up"


async def test_a_cursor_outlives_the_permission_it_stands_at(client: Client) -> None:
    """A newer version may know it no more."""
    admin = await client.admin()
    cursors: CursorSigner = client.app.state.paginator.cursors
    every = [item["name"] for item in (await page(admin, "/permissions"))["items"]]
    for sort, expected in (("name", every[2:]), ("-name", every[1::-1])):
        cursor = cursors.dump("permissions", sort, f"{every[1]}-gone", 0)
        found = await page(admin, "/permissions", cursor=cursor, page_size=100)
        assert [item["name"] for item in found["items"]] == expected


async def test_a_cursor_can_stand_on_any_title(client: Client) -> None:
    """However badly a title compresses, its cursor is one that the next request may send."""
    ana, chance = await client.user(), random.Random(7)
    long = ["".join(chr(chance.randint(0x20000, 0x2A6DF)) for _ in range(200)) for _ in range(3)]
    for title in (*long, '"', "\\", "\N{LINE SEPARATOR}", "'; --"):
        await ana.write(f"x{title}"[:200])
    whole = await page(client, "/posts", sort="title")
    pages = walk(client, "/posts", sort="title", page_size=1)
    assert [post["id"] async for items in pages for post in items] == [
        post["id"] for post in whole["items"]
    ]
    assert whole["total"] == 7


async def test_a_cursor_of_microseconds_skips_nothing(client: Client) -> None:
    """Moments a microsecond apart are different moments, on every database."""
    ana = await client.user()
    ids = [(await ana.write())["id"] for _ in range(6)]
    base = utc_now().replace(microsecond=999_995)
    async with client.database.begin() as session:
        for offset, post_id in enumerate(ids):
            moment = base.replace(microsecond=base.microsecond + offset % 4)
            changed = update(Post).where(Post.id == post_id).values(created_at=moment)
            await session.execute(changed, execution_options={INCLUDE_DELETED: True})
    walked = [
        post["created_at"][-7:]
        async for items in walk(client, "/posts", sort="created_at", page_size=1)
        for post in items
    ]
    assert walked == sorted(f"99999{5 + offset % 4}Z" for offset in range(6))


def test_a_cursor_of_a_sort_that_is_offered_no_more_is_refused() -> None:
    """Another version may have handed it out."""
    cursors = CursorSigner(SecretKeys(["a secret of a test"]))
    cursor = cursors.dump("posts", "-popularity", 7, 1)
    query = PostQuery.model_validate({"cursor": cursor})
    assert cursors.load("posts", ("popularity",), query) == ("-popularity", 7, 1)
    with pytest.raises(InvalidCursor):
        cursors.load("posts", ("created_at",), query)
