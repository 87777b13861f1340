"""Listings: the envelope, pages by number, links, and the number of statements."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest

from app.db import totals
from app.db.engine import Database
from tests.support import sql
from tests.support.client import API, Client, Person
from tests.support.every_listing import (
    ListingOperation,
    every_listing,
    fill_listings,
    listing_ids,
)
from tests.support.listings import fill, page

pytestmark = pytest.mark.long

LINK = re.compile(r'<([^>]*)>; rel="(\w+)"')


def links(response: httpx2.Response) -> dict[str, str]:
    """The Link header, by relation."""
    return {rel: url for url, rel in LINK.findall(response.headers["link"])}


async def test_a_page_says_where_it_stands(client: Client) -> None:
    ana = await client.user()
    for number in range(5):
        await ana.write(f"Post {number}")
    envelopes = []
    for number in (1, 2, 3, 4):
        found = await page(client, "/posts", page=number, page_size=2, sort="title")
        shown = [post["title"][-1] for post in found.pop("items")]
        has_cursor = found.pop("next_cursor") is not None
        assert (found.pop("page"), found.pop("page_size")) == (number, 2)
        assert (found.pop("total"), found.pop("total_pages")) == (5, 3)
        envelopes.append((shown, found["has_prev"], found["has_next"], has_cursor))
    assert envelopes == [
        (["0", "1"], False, True, True),
        (["2", "3"], True, True, True),
        (["4"], True, False, False),
        ([], True, False, False),
    ]


async def test_every_listing_answers_the_same_envelope(client: Client) -> None:
    admin = await client.admin()
    ids = await listing_ids(admin)
    await fill_listings(admin, ids, 3)
    for listing in every_listing(admin, ids):
        found = await page(admin, listing.path)
        assert set(found) == {
            "items",
            "total",
            "total_is_exact",
            "page",
            "page_size",
            "total_pages",
            "has_next",
            "has_prev",
            "next_cursor",
        }
        assert (found["page"], found["page_size"], found["total_pages"]) == (1, 20, 1)
        assert found["total"] == len(found["items"]) >= 3
        first = await page(admin, listing.path, page_size=1)
        assert first["total_pages"] == first["total"] == found["total"]
        by_cursor = await page(admin, listing.path, page_size=1, cursor=first["next_cursor"])
        assert by_cursor["items"] == found["items"][1:2]
        assert (by_cursor["total"], by_cursor["page"], by_cursor["total_pages"]) == (None,) * 3
        assert by_cursor["has_prev"] is True


async def test_an_empty_listing_is_a_page_too(client: Client) -> None:
    response = await client.get("/posts")
    assert response.json() == {
        "items": [],
        "total": 0,
        "total_is_exact": True,
        "page": 1,
        "page_size": 20,
        "total_pages": 0,
        "has_next": False,
        "has_prev": False,
        "next_cursor": None,
    }
    assert response.headers["x-total-count"] == "0"
    assert set(links(response)) == {"first", "last"}


async def test_links_lead_through_the_pages(client: Client) -> None:
    ana = await client.user()
    for number in range(5):
        await ana.write(f"Post {number}", tags=["año nuevo"])
    params = {"page_size": 2, "sort": "title", "tag": "año nuevo"}
    first = await client.get("/posts", params=params)
    assert first.headers["x-total-count"] == "5"
    assert set(links(first)) == {"first", "next", "last"}
    middle = await client.get(links(first)["next"])
    last = await client.get(links(middle)["next"])
    assert set(links(middle)) == {"first", "prev", "next", "last"}
    assert set(links(last)) == {"first", "prev", "last"}
    assert (await client.get(links(first)["last"])).json() == last.json()
    assert (await client.get(links(middle)["prev"])).json() == first.json()
    assert (await client.get(links(last)["first"])).json() == first.json()
    for url in links(middle).values():
        parts = urlsplit(url)
        assert (parts.scheme, parts.netloc, parts.path) == ("", "", f"{API}/posts")
        assert parse_qs(parts.query).items() >= {"sort": ["title"], "tag": ["año nuevo"]}.items()
    titles = [post["title"] for each in (first, middle, last) for post in each.json()["items"]]
    assert titles == [f"Post {number}" for number in range(5)]


async def test_links_lead_on_by_cursor(client: Client) -> None:
    ana = await client.user()
    for number in range(5):
        await ana.write(f"Post {number}")
    start = await page(client, "/posts", page_size=2, sort="title")
    params = {"page_size": 2, "cursor": start["next_cursor"]}
    middle = await client.get("/posts", params=params)
    assert "x-total-count" not in middle.headers
    assert set(links(middle)) == {"first", "next"}
    last = await client.get(links(middle)["next"])
    assert set(links(last)) == {"first"}
    assert [post["title"] for post in last.json()["items"]] == ["Post 4"]
    assert last.json()["has_next"] is False


async def test_links_do_not_repeat_the_callers_host(client: Client) -> None:
    """A52: the Host header is the client's word, not ours."""
    response = await client.get("/posts", headers={"Host": "evil.example"})
    assert "evil" not in response.headers["link"]


async def test_paging_is_bounded_and_typed_everywhere(client: Client) -> None:
    """A42: page=2^31 and page_size=101 are refused, and so is what a listing does not know."""
    admin = await client.admin()
    wrong: dict[str, list[Any]] = {
        "page": [0, -1, 2**31, 2**63, "x", "1.5", ""],
        "page_size": [0, -1, 101, 2**31, "x"],
        "sort": ["id", "password_hash", "", "--created_at", "name,email"],
        "offset": [1],
        "limit": [1],
        "cursor": ["a\0b", "x" * 2_001],
    }
    for listing in every_listing(admin, await listing_ids(admin)):
        for field, values in wrong.items():
            for value in values:
                response = await admin.get(listing.path, params={field: value})
                assert response.status_code == 422, (listing.path, field, value)
                assert [error["field"] for error in response.json()["errors"]] == [field]
        far = await page(admin, listing.path, page=2**31 - 1, page_size=100)
        assert (far["items"], far["has_next"], far["next_cursor"]) == ([], False, None)


async def statement_count(person: Person, listing: ListingOperation, **params: object) -> int:
    """Statements of a listing, without the one that identifies the caller."""
    with sql.watched(person.database) as sent:
        found = await page(person, listing.path, page_size=100, **params)
    assert found["items"] or params
    asked = [
        statement
        for statement in sent
        if "JOIN sessions ON sessions.user_id = users.id" not in statement.text
    ]
    assert len(sent) - len(asked) <= 1, "one statement identifies the caller"
    return len(asked)


async def test_a_listing_costs_three_statements_however_long_it_is(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A43: at most three beside the caller's identification, as many at 1 row and at 100."""
    monkeypatch.setattr(totals, "TOTAL_CACHE_SECONDS", 0)
    admin = await client.admin()
    ids = await listing_ids(admin)
    await fill_listings(admin, ids, 1, prefix="One")
    every = every_listing(admin, ids)
    at_one = {listing.path: await statement_count(admin, listing) for listing in every}
    await fill_listings(admin, ids, 100)
    at_hundred = {listing.path: await statement_count(admin, listing) for listing in every}
    assert at_one == at_hundred
    assert {path: number for path, number in at_one.items() if number > 3} == {}
    in_trash = [
        await statement_count(admin, entry, deleted=True) for entry in every if entry.has_trash
    ]
    assert max(in_trash) <= 3


async def default_listing_plan(database: Database, person: Client) -> list[str]:
    """How the database finds the ids of the first page of posts."""
    with sql.watched(database) as sent:
        await page(person, "/posts")
    (rows,) = [each for each in sent if "AS page" in each.text and "LIMIT" in each.text]
    return await sql.plan(database, rows)


@pytest.mark.parametrize("who", ["anybody", "moderator"])
async def test_the_default_listing_reads_its_page_from_an_index(client: Client, who: str) -> None:
    """A42: no sort and no walk over the table, so the time does not grow with the posts."""
    ana = await client.user()
    person: Client = client if who == "anybody" else await client.moderator()
    await fill(ana, 400)
    await sql.gather_statistics(client.database, "posts")
    steps = await default_listing_plan(client.database, person)
    match client.database.dialect:
        case "mysql":
            (ids,) = [step for step in steps if "DERIVED" in step and "<derived" not in step]
            assert "ix_posts_created_at" in ids
            assert "Using index" in ids
            assert "filesort" not in ids
        case "sqlite":
            (ids,) = [step for step in steps if "ix_posts_created_at" in step]
            assert "COVERING INDEX" in ids
            assert not any("TEMP B-TREE" in step for step in steps[: steps.index(ids) + 1])
        case _:
            (ids,) = [step for step in steps if "ix_posts_created_at" in step]
            assert "Index Only Scan Backward" in ids
            below = steps[: steps.index(ids)]
            assert "Limit" in below[-1]
