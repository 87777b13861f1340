"""Search: the same words find the same rows on every kind of database."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, text
from sqlalchemy.dialects import mysql, postgresql, sqlite

from app.core.words import _LETTERS, _MAX_REMEMBERED, MAX_WORDS, index_words, search_words
from app.db import pagination as listing_pages
from app.db.search import Search, Unindexed
from app.models.posts import Post
from app.models.search import SEARCHED, PostSearch, fts_statements
from tests.support.client import Client
from tests.support.listings import titles
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
    "cafe\u0301": [0, 1, 2],
    "\uff23\uff21\uff26É": [0, 1, 2],
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
    # A text in all scripts there are fills no memory.
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


@pytest.mark.parametrize(("scan_limit", "most"), [(1_000, 100_000), (3, 1_000), (3, 6), (3, 1)])
async def test_pages_of_a_search_are_the_same_however_they_are_found(
    client: Client, monkeypatch: pytest.MonkeyPatch, scan_limit: int, most: int
) -> None:
    """Among the next rows, among more of them as the first let expect, or by the index."""
    monkeypatch.setattr(listing_pages, "_SCAN_LIMIT", scan_limit)
    monkeypatch.setattr(listing_pages, "_MAX_SCAN_LIMIT", most)
    if most == 6:
        # As if the rows were many more: what is too rare among the first is counted by the index.
        monkeypatch.setattr(listing_pages, "_COUNT_SCAN_LIMIT", scan_limit)
        monkeypatch.setattr(listing_pages, "_COMMON", scan_limit + 1)
    ana = await client.user()
    for number in range(12):
        await ana.write(f"Bread {number:02}" if number % 3 else f"Cake {number:02}")
    for search, rest in (("bread", {1, 2}), ("cake", {0}), ("pie", set())):
        titles = [f"{search.title()} {n:02}" for n in range(12) if n % 3 in rest]
        for size, sort in ((1, "title"), (2, "-title"), (3, "title"), (20, "-title")):
            wanted = titles if sort == "title" else titles[::-1]
            for number in (4, 1, 3, 2, 9, 1):
                params = {"q": search, "sort": sort, "page_size": size, "page": number}
                found = (await client.get("/posts", params=params)).json()
                shown = [post["title"] for post in found["items"]]
                assert shown == wanted[(number - 1) * size : number * size], params
                assert (found["total"], found["total_is_exact"]) == (len(titles), True)
                assert found["has_next"] == (number * size < len(titles))


def test_many_marks_take_no_longer_than_many_letters() -> None:
    """In one text, in no order: putting them in order would take the square of their number."""

    def seconds(text: str) -> float:
        index_words(text)
        began = time.perf_counter()
        index_words(text)
        return time.perf_counter() - began

    letters, marks = "ábc " * 10_000, "a" + "\u0300" * 20_000 + "\u0316" * 19_999
    assert seconds(marks) < 20 * seconds(letters)


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


def test_the_index_of_sqlite_is_made_by_a_restore_as_by_the_migrations(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A migration imports nothing of the app: what both make stands in both."""
    monkeypatch.setenv("DATA_DIR", str(tmp_path))
    url = f"sqlite+aiosqlite:///{tmp_path}/migrated.db"
    alembic(url, "upgrade", "head")
    with connected(url) as connection:
        statements = connection.scalars(
            text("SELECT sql FROM sqlite_master WHERE name LIKE 'fts_%'")
        )
        found = {sql.replace("IF NOT EXISTS ", "") for sql in statements if sql and "fts_" in sql}
    tables = [model.__tablename__ for model in SEARCHED]
    wanted = {each for each in fts_statements(tables) if each.startswith("CREATE")}
    assert wanted <= found
    assert fts_statements([]) == []
