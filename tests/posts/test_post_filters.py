"""Filters of the listing of posts: fields, literal search, tags."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

from tests.support.client import Client


async def titles(client: Client, path: str = "/posts", **params: Any) -> list[str]:
    """Titles of the posts that match, in alphabetical order."""
    response = await client.get(path, params=params)
    assert response.status_code == 200, response.text
    body = response.json()
    assert body["total"] == len(body["items"]), "the count follows the same filters"
    return sorted(post["title"] for post in body["items"])


async def test_filters_narrow_and_combine(client: Client) -> None:
    ana, luis = await client.user(), await client.user("Luis")
    first = await ana.write("First", content="about bread", tags=["news"])
    second = await ana.write("Second", content="about wine", tags=["news", "wine"])
    await ana.write("Third", content="about wine", status="draft", tags=["wine"])
    await luis.write("Fourth", content="about bread")
    by_ana = f"/users/{ana.id}/posts"
    everything = ["First", "Fourth", "Second", "Third"]
    assert await titles(ana) == everything
    assert await titles(ana, status="draft") == ["Third"]
    assert await titles(ana, status="published") == ["First", "Fourth", "Second"]
    assert await titles(ana, author_id=luis.id) == ["Fourth"]
    assert await titles(ana, by_ana) == ["First", "Second", "Third"]
    assert await titles(ana, by_ana, tag="wine") == ["Second", "Third"]
    assert await titles(ana, tag=" WINE ", status="published") == ["Second"]
    assert await titles(ana, tag="nothing has it") == []
    assert await titles(ana, q="BREAD") == ["First", "Fourth"]
    assert await titles(ana, q="second") == ["Second"], "the title counts too"
    assert await titles(ana, q="bread", author_id=ana.id, tag="news") == ["First"]
    assert await titles(ana, q="") == everything
    span = {"created_from": first["created_at"], "created_to": second["created_at"]}
    assert await titles(ana, **span) == ["First"], "from: inclusive, to: exclusive"
    later = [title for title in everything if title != "First"]
    assert await titles(ana, created_from=second["created_at"]) == later
    assert await titles(ana, created_to=first["created_at"]) == []
    assert await titles(ana, author_id=2**62) == []


async def test_moments_are_compared_in_utc(client: Client) -> None:
    """A15: whatever the offset they are written with."""
    ana = await client.user()
    created = (await ana.write("Now"))["created_at"]
    moment = datetime.fromisoformat(created)
    for hours in (5, -11):
        elsewhere = moment.astimezone(timezone(timedelta(hours=hours))).isoformat()
        assert await titles(client, created_from=elsewhere) == ["Now"]
        assert await titles(client, created_to=elsewhere) == []
    assert await titles(client, created_from=created) == ["Now"]
    assert await titles(client, created_to=created) == []


async def test_filters_are_typed(client: Client) -> None:
    for wrong in (
        {"author_id": "x"},
        {"author_id": 0},
        {"author_id": 2**63},
        {"status": "deleted"},
        {"tag": ""},
        {"tag": "x" * 51},
        {"q": "x" * 201},
        {"q": "a\0b"},
        {"created_from": "yesterday"},
        {"created_from": "2026-01-01T00:00:00"},
        {"created_to": "0001-01-01T00:00:00+14:00"},
        {"deleted": "perhaps"},
        {"sort": "content"},
        {"sort": "id; DROP TABLE posts"},
    ):
        response = await client.get("/posts", params=wrong)
        assert response.status_code == 422, wrong
        assert [error["field"] for error in response.json()["errors"]] == list(wrong)
    path = f"/users/{(await client.register())['id']}/posts"
    assert (await client.get(path, params={"author_id": 1})).status_code == 422
