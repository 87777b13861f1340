"""Searches: the same words find the same rows on every kind of database."""

from __future__ import annotations

from typing import Any

import pytest

from app.core.words import index_words, search_words
from tests.support.client import Client

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
    for text in CORPUS:
        await ana.write(text, content="-")
    expected = {q: sorted(CORPUS[place] for place in places) for q, places in FINDS.items()}
    assert {q: sorted(await titles(client, "/posts", "title", q=q)) for q in FINDS} == expected


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
