"""Filters by associated rows return the same pages whichever query plan is used."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import create_mock_engine, select
from sqlalchemy.dialects import postgresql

from app.crud import post_listing, user_queries
from app.db.queries import PreparedQuery
from app.db.selective_filters import FilterForm, SelectiveFilter
from app.models.base import DatabaseNow
from app.models.posts import Post
from app.models.tags import PostTag
from tests.support.client import Client
from tests.support.listings import walk
from tests.support.people import new_user


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
    monkeypatch.setattr(post_listing._TAGGED, "_threshold_factor", 1)
    assert await titles(ana, "/posts", **asked) == few
    assert sorted(few) == ["P0", "P2", "P4"]
    second = (await ana.get("/posts", params={**asked, "page": 2})).json()
    assert ([item["title"] for item in second["items"]], second["total"]) == (few[1:2], 3)
    assert await titles(ana, "/posts", **asked, status="draft") == few
    assert await titles(ana, "/posts", **asked, status="published") == []


@pytest.mark.parametrize("sort", ["title", "-published_at", "-created_at"])
async def test_posts_by_author_are_the_same_for_few_and_for_many(
    client: Client, monkeypatch: pytest.MonkeyPatch, sort: str
) -> None:
    ana, ben = await new_user(client), await new_user(client)
    for number in range(6):
        body = {"title": f"P{number}", "content": "", "status": "published", "tags": ["both"]}
        await (ana if number % 2 == 0 else ben).post("/posts", body)
    asked = {"sort": sort, "page_size": 1}
    few = await titles(ana, f"/users/{ana.id}/posts", **asked)
    monkeypatch.setattr(post_listing._BY_AUTHOR, "_threshold_factor", 0)
    assert await titles(ana, f"/users/{ana.id}/posts", **asked) == few
    assert await titles(ana, f"/users/{ana.id}/posts", tag="both", **asked) == few
    assert sorted(few) == ["P0", "P2", "P4"]


@pytest.mark.parametrize("sort", ["title", "-created_at"])
async def test_the_trash_is_the_same_for_little_and_for_much(
    client: Client, monkeypatch: pytest.MonkeyPatch, sort: str
) -> None:
    boss = await new_user(client, roles=["admin", "user"])
    for number in range(4):
        post = (await boss.post("/posts", {"title": f"P{number}", "content": ""})).json()
        if number % 2 == 0:
            await boss.delete(f"/posts/{post['id']}")
    asked = {"deleted": "true", "sort": sort, "page_size": 1}
    few = await titles(boss, "/posts", **asked)
    monkeypatch.setattr(post_listing._IN_TRASH, "_threshold_factor", 0)
    assert await titles(boss, "/posts", **asked) == few
    assert {"P0", "P2"} <= {*few}
    assert {"P1", "P3"}.isdisjoint(few)


@pytest.mark.parametrize("sort", ["published_at", "-published_at"])
async def test_drafts_in_the_order_of_publication(client: Client, sort: str) -> None:
    """All of them come together, by id; one that was taken back too."""
    ana = await new_user(client)
    for number in range(4):
        body = {"title": f"P{number}", "content": "", "status": "published" if number else "draft"}
        post = (await ana.post("/posts", body)).json()
        if number == 2:
            await ana.delete(f"/posts/{post['id']}/publication")
    found = await titles(ana, "/posts", sort=sort, status="draft", page_size=1)
    assert found == (["P0", "P2"] if sort == "published_at" else ["P2", "P0"])


@pytest.mark.parametrize("sort", ["published_at", "-published_at"])
async def test_the_order_of_publication_hides_nothing(client: Client, sort: str) -> None:
    ana, everybody = await new_user(client), client
    for number in range(4):
        status = "published" if number % 2 else "draft"
        await ana.post(
            "/posts", {"title": f"P{number}", "content": "", "status": status, "tags": ["in-order"]}
        )
    asked = {"sort": sort, "tag": "in-order", "page_size": 1}
    assert sorted(await titles(ana, "/posts", **asked)) == ["P0", "P1", "P2", "P3"]
    for who, params in ((everybody, asked), (ana, {**asked, "status": "published"})):
        assert sorted(await titles(who, "/posts", **params)) == ["P1", "P3"]
        assert (await who.get("/posts", params=params)).json()["total"] == 2
    assert sorted(await titles(ana, "/posts", **asked, status="draft")) == ["P0", "P2"]


async def test_users_by_role_are_the_same_for_few_and_for_many(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    boss = await new_user(client, roles=["admin", "user"])
    roles = (await boss.get("/roles", params={"sort": "name"})).json()["items"]
    role_id = next(role["id"] for role in roles if role["name"] == "admin")
    paths = [("/users", {"role": "admin"}), (f"/roles/{role_id}/users", {})]
    few = [(await boss.get(path, params=params)).json() for path, params in paths]
    assert few[0]["total"] == few[1]["total"] > 0
    for role_filter in (user_queries._HAVING_ROLE, user_queries._MEMBERS):
        monkeypatch.setattr(role_filter, "_threshold_factor", 0)
    for (path, params), page in zip(paths, few, strict=True):
        assert (await boss.get(path, params=params)).json() == page


def test_the_clock_of_postgresql_is_one_for_a_statement() -> None:
    compiled = select(DatabaseNow()).compile(dialect=postgresql.dialect())  # type: ignore[no-untyped-call]
    assert "statement_timestamp()" in str(compiled)


@pytest.mark.parametrize(
    ("url", "live", "condition"),
    [
        ("sqlite://", "posts.deleted_at IS NULL", "posts.id IN (SELECT"),
        ("mysql+pymysql://", "(posts.deleted_at IS NULL) IS TRUE", "posts.id IN (SELECT"),
        ("postgresql+psycopg://", "posts.deleted_at IS NULL", "posts.id = ANY (ARRAY(SELECT"),
    ],
)
def test_each_database_gets_what_its_optimiser_needs(url: str, live: str, condition: str) -> None:
    dialect = create_mock_engine(url, lambda *_: None).dialect
    tagged = SelectiveFilter.by_association(Post, select(PostTag.post_id))
    query = PreparedQuery(select(Post.id).where(tagged.filter(FilterForm.selective)))
    sql = query.compiled(dialect).sql
    assert live in sql
    assert condition in sql
