"""Filters by what rows have, written for few and for many: the same pages."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import create_mock_engine, select

from app.crud import holders
from app.models.posts import Post
from app.models.tags import PostTag
from app.reading import Query
from tests.support.client import Client
from tests.support.listings import walk
from tests.support.people import newcomer


async def titles(client: Any, path: str, **params: Any) -> list[str]:
    return [item["title"] async for items in walk(client, path, **params) for item in items]


@pytest.mark.parametrize("sort", ["title", "-created_at"])
async def test_posts_by_tag_are_the_same_for_few_and_for_many(
    client: Client, monkeypatch: pytest.MonkeyPatch, sort: str
) -> None:
    ana = await client.user()
    tag = f"held-{sort.strip('-')[:5]}"
    for number in range(5):
        tags = [tag] if number % 2 == 0 else ["other"]
        assert (
            await ana.post("/posts", {"title": f"P{number}", "content": "", "tags": tags})
        ).status_code == 201
    asked = {"tag": tag, "sort": sort, "page_size": 1}
    few = await titles(ana, "/posts", **asked)
    monkeypatch.setattr(holders, "_ROOT_OF_ROWS", 1)
    assert await titles(ana, "/posts", **asked) == few
    assert sorted(few) == ["P0", "P2", "P4"]
    second = (await ana.get("/posts", params={**asked, "page": 2})).json()
    assert ([item["title"] for item in second["items"]], second["total"]) == (few[1:2], 3)
    assert await titles(ana, "/posts", **asked, status="draft") == few
    assert await titles(ana, "/posts", **asked, status="published") == []


async def test_users_by_role_are_the_same_for_few_and_for_many(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    boss = await newcomer(client, roles=["admin", "user"])
    roles = (await boss.get("/roles", params={"sort": "name"})).json()["items"]
    role_id = next(role["id"] for role in roles if role["name"] == "admin")
    paths = [("/users", {"role": "admin"}), (f"/roles/{role_id}/users", {})]
    few = [(await boss.get(path, params=params)).json() for path, params in paths]
    assert few[0]["total"] == few[1]["total"] > 0
    monkeypatch.setattr(holders, "_ROOT_OF_ROWS", 0)
    for (path, params), page in zip(paths, few, strict=True):
        assert (await boss.get(path, params=params)).json() == page


@pytest.mark.parametrize(
    ("url", "live", "held"),
    [
        ("sqlite://", "posts.deleted_at IS NULL", "posts.id IN (SELECT"),
        ("mysql+pymysql://", "(posts.deleted_at IS NULL) IS TRUE", "posts.id IN (SELECT"),
        ("postgresql+psycopg://", "posts.deleted_at IS NULL", "posts.id = ANY (ARRAY(SELECT"),
    ],
)
def test_each_database_gets_what_its_optimiser_needs(url: str, live: str, held: str) -> None:
    dialect = create_mock_engine(url, lambda *_: None).dialect
    tagged = holders.Holders(Post, select(PostTag.post_id))
    query = Query(select(Post.id).where(tagged.filter(holders.Held.few)))
    sql = query.compiled(dialect).sql
    assert live in sql
    assert held in sql
