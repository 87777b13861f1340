"""The search index: missing words are written, beside concurrent changes too."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import delete
from sqlalchemy.ext.asyncio import AsyncSession

from app.db import search_index
from app.db.engine import Database
from app.models.posts import Post
from app.models.search import PostSearch, SearchRow
from tests.support.client import Client
from tests.support.listings import titles


async def forget_words(database: Database, model: type[SearchRow] = PostSearch) -> None:
    async with database.begin() as session:
        await session.execute(delete(model))


async def test_words_that_are_missing_are_written(client: Client) -> None:
    ana = await client.user()
    created = [await ana.write(f"Bread {number}", content="-") for number in range(3)]
    await ana.delete(f"/posts/{created[0]['id']}")
    await forget_words(client.database)
    assert await titles(ana, "/posts", "title", q="bread") == []
    # One that is changed meanwhile has words again.
    await ana.patch(f"/posts/{created[1]['id']}", {"title": "Bread and wine"})
    assert await search_index.fill(client.database) >= 2
    assert await search_index.fill(client.database) == 0
    assert len(await titles(ana, "/posts", "title", q="bread")) == 2
    assert await titles(ana, "/posts", "title", q="bread", deleted=True) == ["Bread 0"]


async def test_words_that_somebody_writes_meanwhile_are_no_error(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    ana = await client.user()
    for number in range(3):
        await ana.write(f"Bread {number}", content="-")
    await forget_words(client.database)
    write, calls = search_index._write, []

    async def late(session: AsyncSession, **given: Any) -> None:
        calls.append(given)
        await write(session, **given)
        if len(calls) == 1:
            await write(session, **given)

    monkeypatch.setattr(search_index, "_write", late)
    assert await search_index.fill(client.database) == 3
    assert len(await titles(ana, "/posts", "title", q="bread")) == 3


async def test_words_of_rows_that_go_meanwhile_are_let_go(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    ana = await client.user()
    await ana.write("Bread", content="-")
    await forget_words(client.database)
    write = search_index._write

    async def late(session: AsyncSession, **given: Any) -> None:
        # As if by another process: the insert finds no post.
        await session.execute(delete(Post))
        await write(session, **given)

    monkeypatch.setattr(search_index, "_write", late)
    assert await search_index.fill(client.database) == 0
