"""Searches: the same words find the same rows on every kind of database."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete, select, text
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.context import RequestContext, current
from app.core.exceptions import Overloaded
from app.core.words import _LETTERS, _MAX_REMEMBERED, MAX_WORDS, index_words, search_words
from app.crud import pages as listing_pages
from app.crud import search_index, shares
from app.crud.search import Search, Unindexed
from app.crud.shares import Share
from app.database import Database
from app.models.posts import Post
from app.models.search import SEARCHED, PostSearch, SearchRow, fts_statements
from tests.support.client import Client
from tests.support.schema import alembic, connected

CORPUS = [
    "Café Zürich",
    "cafe zurich",
    "CAFETERÍA",
    "well-known facts",
    "it's O'Brien",
    'say "hello"',
    "C++ and C#",
    "snake_case",
    "100% sure",
    "naïve Straße",
    "the and of with not or near",
    "日本語の本",
    "Привет мир",
    "ΣΊΣΥΦΟΣ",
    "İstanbul",
    "xylophone XX x4e2d",
    "🥖 pan",
    "e\u0301lan vital",
]
# By the search, the places of what it finds in CORPUS.
FINDS: dict[str, list[int]] = {
    # Case and accents make no difference; a word is found by its beginning.
    "cafe": [0, 1, 2],
    "CAFÉ": [0, 1, 2],
    "caf": [0, 1, 2],
    "cafe zur": [0, 1],
    "zur caf": [0, 1],
    "afe": [],
    "elan": [17],
    "élan": [17],
    "istan": [14],
    "ISTANBUL": [14],
    "strasse": [9],
    "STRASSE": [9],
    "σισυφος": [13],
    "Σίσ": [13],
    "ПРИВЕТ": [12],
    "прив": [12],
    # Hyphens, apostrophes and signs separate words; those of under three letters narrow nothing.
    "well-known": [3],
    "known facts": [3],
    "o'brien": [4],
    "brien": [4],
    "it's": [*range(len(CORPUS))],
    "say hello": [5],
    "snake_case": [7],
    "snake case": [7],
    "c++": [*range(len(CORPUS))],
    "100": [8],
    "100%": [8],
    "🥖": [*range(len(CORPUS))],
    "🥖 pan": [16],
    "": [*range(len(CORPUS))],
    "   ": [*range(len(CORPUS))],
    # A run of letters without spaces is one word.
    "日本語": [11],
    "本語の": [],
    "日本": [*range(len(CORPUS))],
    # No list of words that are left out, and nothing is an operator.
    "the": [10],
    "and": [6, 10],
    "not": [10],
    "with near": [10],
    "NEAR(cafe zurich)": [],
    "cafe OR facts": [],
    "cafe NOT zurich": [],
    "-zurich": [0, 1],
    "+cafe -zurich": [0, 1],
    "cafe*": [0, 1, 2],
    "ca*fe": [*range(len(CORPUS))],
    "cafe*zur": [0, 1],
    '"cafe zurich"': [0, 1],
    "(cafe)": [0, 1, 2],
    "cafe & zurich": [0, 1],
    "cafe | facts": [],
    "!cafe": [0, 1, 2],
    "cafe:*": [0, 1, 2],
    "words:cafe": [],
    "cafe@4": [0, 1, 2],
    "<cafe>": [0, 1, 2],
    "~cafe": [0, 1, 2],
    "' OR 1=1 --": [*range(len(CORPUS))],
    "cafe'; DROP TABLE posts; --": [],
    "\\": [*range(len(CORPUS))],
    "%": [*range(len(CORPUS))],
    "_ake": [],
    # Nor are the letters by which others are written (`app/core/words.py`).
    "xyl": [15],
    "x4e": [15],
    "0k4l": [],
    "wcafe": [],
}


async def titles(client: Client, path: str, name: str, **params: Any) -> list[str]:
    found, cursor = [], ""
    while True:
        given = params | ({"cursor": cursor} if cursor else {})
        answer = await client.get(path, params={"page_size": 100, **given})
        assert answer.status_code == 200, answer.text
        found += [item[name] for item in answer.json()["items"]]
        cursor = answer.json()["next_cursor"]
        if cursor is None:
            return found


async def test_words_find_the_same_posts_on_every_database(client: Client) -> None:
    ana = await client.user()
    for title in CORPUS:
        await ana.write(title, content="-")
    expected = {q: sorted(CORPUS[place] for place in places) for q, places in FINDS.items()}
    assert {q: sorted(await titles(client, "/posts", "title", q=q)) for q in FINDS} == expected


async def test_a_text_of_very_many_words_is_indexed_as_far_as_there_is_room(client: Client) -> None:
    """Korean syllables are written as three letters: more than PostgreSQL takes as one value."""
    ana = await client.user()
    words = [chr(0xAC00 + n // 100) + chr(0xB000 + n % 100) + chr(0xC000) for n in range(20_000)]
    post = await ana.write("Long", content=" ".join(words))
    assert await titles(client, "/posts", "title", q=words[0]) == ["Long"]
    assert await titles(client, "/posts", "title", q=words[-1]) == []
    assert index_words(post["title"], post["content"]).count(" ") + 1 == MAX_WORDS
    # Whoever writes in all scripts there are fills no memory.
    assert index_words("".join(map(chr, range(0x10000, 0x20000))))
    assert len(_LETTERS) <= _MAX_REMEMBERED


async def test_a_search_follows_what_is_written(client: Client) -> None:
    ana = await client.user()
    post = await ana.write("Morning", content="bread and butter")
    url = f"/posts/{post['id']}"

    async def found(q: str, **params: Any) -> int:
        answer = await ana.get("/posts", params={"q": q, **params})
        return int(answer.json()["total"])

    assert [await found("bread"), await found("morn butt"), await found("wine")] == [1, 1, 0]
    await ana.patch(url, {"content": "wine"})
    assert [await found("bread"), await found("morning wine")] == [0, 1]
    await ana.patch(url, {"title": "Evening"})
    assert [await found("morning"), await found("evening wine")] == [0, 1]
    await ana.delete(url)
    assert [await found("evening"), await found("evening", deleted=True)] == [0, 1]
    await ana.post(f"{url}/restore")
    assert [await found("evening"), await found("evening", deleted=True)] == [1, 0]


async def test_users_are_found_by_name_and_address(client: Client) -> None:
    admin = await client.admin()
    await client.user("José Núñez", email="pepe.nunez@correo.example.com")
    for q in ("jose", "NÚÑ", "pepe", "nunez correo", "pepe.nunez@correo"):
        assert await titles(admin, "/users", "name", q=q) == ["José Núñez"], q
    assert await titles(admin, "/users", "name", q="osé") == []
    user = (await admin.get("/users", params={"q": "pepe"})).json()["items"][0]
    await admin.patch(f"/users/{user['id']}", {"name": "Joaquín"})
    assert await titles(admin, "/users", "name", q="jose") == []
    assert await titles(admin, "/users", "name", q="joaquin pepe") == ["Joaquín"]


async def test_tags_are_found_by_their_words(client: Client) -> None:
    ana = await client.user()
    await ana.write("One", content="-", tags=["slow food", "cocina española"])
    assert await titles(client, "/tags", "name", q="food") == ["slow food"]
    assert await titles(client, "/tags", "name", q="ESPANOLA coc") == ["cocina española"]
    assert await titles(client, "/tags", "name", q="ood") == []


@pytest.mark.parametrize("sort", ["created_at", "-title"])
async def test_pages_of_a_search_hold_each_row_once(client: Client, sort: str) -> None:
    ana = await client.user()
    for number in range(7):
        await ana.write(f"Bread {number}", content="-")
        await ana.write(f"Wine {number}", content="-")
    seen: list[str] = []
    for number in range(1, 5):
        params = {"q": "bread", "sort": sort, "page": number, "page_size": 2}
        page = (await client.get("/posts", params=params)).json()
        assert page["has_next"] == (number < 4)
        assert page["total"] == 7 or not page["total_is_exact"]
        assert page["total"] > len(seen)
        seen += [item["title"] for item in page["items"]]
    wanted = [f"Bread {number}" for number in range(7)]
    assert seen == (wanted if sort == "created_at" else wanted[::-1])
    beyond = {"q": "bread", "sort": sort, "page": 9, "page_size": 2}
    assert (await client.get("/posts", params=beyond)).json()["items"] == []


def test_words_are_written_in_ascii_and_keep_their_beginnings() -> None:
    assert index_words("Abc ábd") == "wabc wabd"
    assert index_words("to be or") == ""
    assert search_words("x" * 200)[0] == ("w" + "x" * 400)[:80]
    for word in ("Привет", "日本語の本", "axxyä", "éxé"):
        [written] = search_words(word)
        assert written.isascii()
        for end in range(3, len(word) + 1):
            [beginning] = search_words(word[:end])
            assert written.startswith(beginning)


@pytest.mark.parametrize(
    ("kind", "found", "tested"),
    [
        (sqlite, "fts_posts MATCH", "json_each"),
        (mysql, "IN BOOLEAN MODE", "REGEXP"),
        (postgresql, "AS TSQUERY", "AS TSQUERY"),
    ],
)
def test_each_database_is_asked_in_its_own_way(kind: Any, found: str, tested: str) -> None:
    """Also those that are not there when the tests run on SQLite alone."""
    dialect: Any = kind.dialect()
    search = Search.of(PostSearch, Post.id)
    assert found in str(search.found.compile(dialect=dialect))
    assert tested in str(select(search.test).compile(dialect=dialect))
    column = str(select(Unindexed(Post.title)).compile(dialect=dialect))
    assert ("+posts.title" in column) == (dialect.name == "sqlite")


# --- Words that are missing --------------------------------------------------------------------


async def forget_words(database: Database, model: type[SearchRow] = PostSearch) -> None:
    async with database.begin() as session:
        await session.execute(delete(model))


async def test_words_that_are_missing_are_written(client: Client) -> None:
    ana = await client.user()
    made = [await ana.write(f"Bread {number}", content="-") for number in range(3)]
    await ana.delete(f"/posts/{made[0]['id']}")
    await forget_words(client.database)
    assert await titles(ana, "/posts", "title", q="bread") == []
    # One that is changed meanwhile has words again.
    await ana.patch(f"/posts/{made[1]['id']}", {"title": "Bread and wine"})
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
        # As if by somebody else: the insert finds no post.
        await session.execute(delete(Post))
        await write(session, **given)

    monkeypatch.setattr(search_index, "_write", late)
    assert await search_index.fill(client.database) == 0


# --- A share of their own ----------------------------------------------------------------------


def test_a_few_are_let_in_at_a_time_and_fewer_of_one_network() -> None:
    share = Share()
    with ExitStack() as inside:
        for ip in ("192.0.2.1", "192.0.2.2"):
            taken = shares.MAX_OF_NETWORK if ip.endswith("1") else shares.MAX_AT_ONCE
            token = current.set(RequestContext(request_id="", ip=ip))
            try:
                for _ in range(min(taken, shares.MAX_AT_ONCE - share._inside.total())):
                    inside.enter_context(share.taken())
                with pytest.raises(Overloaded), share.taken():
                    pass
            finally:
                current.reset(token)
    assert not share._inside


async def test_searches_beyond_the_share_are_refused_at_once(client: Client) -> None:
    searches = client.app.state.pages.searches
    with ExitStack() as inside:
        for _ in range(shares.MAX_AT_ONCE):
            searches._inside["elsewhere"] += 1
        inside.callback(searches._inside.clear)
        refused = await client.get("/posts", params={"q": "bread"})
        assert (refused.status_code, refused.json()["code"]) == (503, "service_unavailable")
        assert int(refused.headers["retry-after"]) > 0
        assert (await client.get("/posts")).status_code == 200
    assert (await client.get("/posts", params={"q": "bread"})).status_code == 200


async def test_who_asks_what_is_being_counted_waits_for_that(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    ana = await client.user()
    await ana.write("Bread", content="-")
    pages = client.app.state.pages
    pages._totals.clear()
    find_out, counted = pages._find_out, []

    async def slowly(*given: Any) -> tuple[int, ...]:
        counted.append(given)
        await asyncio.sleep(0.2)
        found: tuple[int, ...] = await find_out(*given)
        return found

    monkeypatch.setattr(pages, "_find_out", slowly)
    asked = [asyncio.create_task(client.get("/posts")) for _ in range(4)]
    await asyncio.sleep(0.05)
    asked.pop().cancel()
    assert {(await answer).json()["total"] for answer in asked} == {1}
    assert len(counted) == 1
    assert not pages._counting


async def test_a_count_that_takes_long_is_remembered_while_others_write(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing_pages, "_DEAR_SECONDS", -1)
    monkeypatch.setattr(listing_pages, "_COUNTING_SHARE", 1e-9)
    memory = client.app.state.pages
    # Of this test alone: what takes long is remembered for a minute.
    monkeypatch.setattr(memory, "_totals", {})
    ana = await client.user()
    for number in range(3):
        await ana.write(f"Post {number}")
    asked = {"page_size": 1}
    assert (await client.get("/posts", params=asked)).json()["total"] == 3
    await ana.write("Post 3")
    first = (await client.get("/posts", params=asked)).json()
    assert (first["total"], first["total_is_exact"]) == (3, True)
    # It never contradicts the page it is shown with.
    last = (await client.get("/posts", params=asked | {"page": 4})).json()
    assert (last["total"], len(last["items"]), last["has_next"]) == (4, 1, False)
    beyond = (await client.get("/posts", params=asked | {"page": 9})).json()
    assert (beyond["items"], beyond["total"]) == ([], 3)
    third = (await client.get("/posts", params=asked | {"page": 3})).json()
    assert (third["total"], third["total_is_exact"], third["has_next"]) == (4, False, True)


def test_the_index_of_sqlite_is_made_by_a_restore_as_by_the_migrations(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A migration imports nothing of the app: what both make stands in both."""
    monkeypatch.setenv("DATA_DIR", str(tmp_path))
    url = f"sqlite+aiosqlite:///{tmp_path}/migrated.db"
    alembic(url, "upgrade", "head")
    with connected(url) as connection:
        made = connection.scalars(text("SELECT sql FROM sqlite_master WHERE name LIKE 'fts_%'"))
        found = {sql.replace("IF NOT EXISTS ", "") for sql in made if sql and "fts_" in sql}
    tables = [model.__tablename__ for model in SEARCHED]
    wanted = {each for each in fts_statements(tables) if each.startswith("CREATE")}
    assert wanted <= found
    assert fts_statements([]) == []
