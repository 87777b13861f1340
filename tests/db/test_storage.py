"""Values are read back as they were written, and every session has the promised settings."""

from __future__ import annotations

import json
import unicodedata
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import DBAPIError, IntegrityError, StatementError

from app.db.engine import STATEMENT_SECONDS, Database
from app.db.sqlite import LOCK_WAIT_SECONDS
from app.models import Base
from app.models.posts import MAX_CONTENT, MAX_TITLE, Post
from app.models.tags import PostTag, Tag
from app.models.users import MAX_NAME, User
from tests.support.client import PASSWORD, Client

on_servers = pytest.mark.parametrize("database_url", ["mariadb", "postgresql"], indirect=True)
on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
on_mariadb = pytest.mark.parametrize("database_url", ["mariadb"], indirect=True)
on_postgresql = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)

CORPUS = {
    "4 bytes": "😀🧿𝔘𐍈",
    "zero-width joiners": "👩‍👩‍👧‍👦 🏳️‍🌈",
    "right to left": "مرحبا שלום \u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
    "combining": "Z\u0351\u036b\u0343a\u0328\u0301",
    "composed": unicodedata.normalize("NFC", "Señor Ångström"),
    "decomposed": unicodedata.normalize("NFD", "Señor Ångström"),
    "compatibility": "ﬁ \uff21\uff22\uff23 \u210c ²",
    "case": "ẞ ß İ \u0131 \u017f",
    "spaces": "c\u00a0d\u200be\u3000f",
    "quotes": "'; DROP TABLE users; -- \\ \" % _ {0} ${x}",
    "last of all": "\U0010ffff\ufffd\ufffe",
}
# What a single line may not hold (`tests/contract/test_single_line_text.py`), but a content may.
ONLY_IN_CONTENTS = {
    "overridden": "مرحبا שלום \u202eabc\u202c \u2067x\u2069 \u200f",
    "separators": "a\u2028b\u2029c\x85d",
    "controls": "a\tb\r\nc\x7fd\x01e",
    "invisible": "\u200b\u3164\u2800",
}


# --- Text ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("sample", CORPUS.values(), ids=CORPUS)
async def test_text_comes_back_byte_for_byte(client: Client, sample: str) -> None:
    """A16: in names, titles and contents, written, changed and read."""
    ana = await client.user(sample)
    created = await ana.write(sample, content=sample)
    assert (created["title"], created["content"], created["author"]["name"]) == (sample,) * 3
    path, marked = f"/posts/{created['id']}", sample + "."
    edited = await ana.patch(path, {"title": marked, "content": marked})
    assert edited.status_code == 200
    found = (await client.get(path)).json()
    assert (found["title"], found["content"]) == (marked, marked)
    assert found["author"]["name"].encode() == sample.encode()
    assert (await ana.get("/users/me")).json()["name"] == sample


@pytest.mark.parametrize("sample", ONLY_IN_CONTENTS.values(), ids=ONLY_IN_CONTENTS)
async def test_contents_of_several_lines_come_back_byte_for_byte(
    client: Client, sample: str
) -> None:
    """A16: what is refused in a name or a title is kept where text has many lines."""
    ana = await client.user()
    post = await ana.write(content=sample)
    assert post["content"] == sample
    assert (await client.get(f"/posts/{post['id']}")).json()["content"].encode() == sample.encode()


async def test_text_of_the_greatest_length_comes_back_whole(client: Client) -> None:
    """A16: counted in characters, of four bytes each; one more is refused, never cut."""
    ana = await client.user("😀" * MAX_NAME)
    assert ana.account["name"] == "😀" * MAX_NAME
    post = await ana.write("😀" * MAX_TITLE, content="ñ" * MAX_CONTENT)
    found = (await client.get(f"/posts/{post['id']}")).json()
    assert (found["title"], found["content"]) == ("😀" * MAX_TITLE, "ñ" * MAX_CONTENT)
    path = f"/posts/{post['id']}"
    for longer in ({"title": "😀" * (MAX_TITLE + 1)}, {"content": "ñ" * (MAX_CONTENT + 1)}):
        assert (await ana.patch(path, longer)).status_code == 422
    assert (await client.get(path)).json() == found


async def test_the_widest_content_fits_its_column(client: Client) -> None:
    """A16: more bytes than a body may have by default, but no more than the column has."""
    ana = await client.user()
    post = await ana.write()
    async with client.database.begin() as session:
        row = await session.get_one(Post, post["id"])
        row.content = "😀" * MAX_CONTENT
    found = (await client.get(f"/posts/{post['id']}")).json()
    assert found["content"] == "😀" * MAX_CONTENT


@pytest.mark.parametrize("escape", [r"\u0000", r"\ud800", r"\udfff\ud800"])
async def test_text_no_database_can_keep_is_refused(client: Client, escape: str) -> None:
    """A16: NUL and lone surrogates, wherever text is taken."""
    ana = await client.admin()
    post = await ana.write()
    account = {"email": "x@example.com", "name": "Xx", "password": PASSWORD}
    headers = {"Content-Type": "application/json"}
    targets: list[tuple[str, str, dict[str, Any], str]] = [
        ("POST", "/posts", {"title": "x", "content": "x"}, "title"),
        ("POST", "/posts", {"title": "x", "content": "x"}, "content"),
        ("PATCH", f"/posts/{post['id']}", {"tags": "x"}, "tags"),
        ("POST", "/auth/register", account, "name"),
        ("POST", "/auth/register", account, "email"),
        ("POST", "/auth/register", account, "password"),
        ("PATCH", "/users/me", {"name": "x"}, "name"),
        ("POST", "/roles", {"name": "xx", "description": "x"}, "description"),
    ]
    for method, path, good, field in targets:
        hostile = json.dumps(good | {field: ["HOLE"] if field == "tags" else "HOLE"})
        body = hostile.replace("HOLE", f"Abcdefgh1{escape}").encode()
        response = await ana.request(method, path, content=body, headers=headers)
        assert response.status_code == 422, (field, response.text)
    assert (await client.get(f"/posts/{post['id']}")).json() == post


async def test_texts_that_only_look_alike_are_different_tags(client: Client) -> None:
    """FACTS: MariaDB's default collation takes accents, trailing spaces and all emoji for equal."""
    ana = await client.user()
    names = sorted(["ano", "año", "😀", "😁", "resume", "résumé"])
    assert (await ana.write(tags=names))["tags"] == names
    found = (await client.get("/tags")).json()["items"]
    assert sorted(tag["name"] for tag in found) == names


# --- Time ----------------------------------------------------------------------------------------

MOMENT = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=timezone(timedelta(hours=5)))
SHOWN = "2026-03-01T07:00:00.123456Z"


async def test_a_moment_with_an_offset_comes_back_in_utc_to_the_microsecond(
    client: Client,
) -> None:
    """A15: 12:00:00.123456+05:00 is 07:00:00.123456Z, in bodies and in filters."""
    ana = await client.user()
    post = await ana.write()
    async with client.database.begin() as session:
        row = await session.get_one(Post, post["id"])
        row.created_at = row.published_at = MOMENT
    async with client.database.begin(readonly=True) as session:
        stored = await session.scalar(select(Post.created_at))
    assert stored == MOMENT
    assert stored.tzinfo is UTC
    found = (await client.get(f"/posts/{post['id']}")).json()
    assert (found["created_at"], found["published_at"]) == (SHOWN, SHOWN)

    async def total(**filters: datetime) -> int:
        params = {name: moment.isoformat() for name, moment in filters.items()}
        return int((await client.get("/posts", params=params)).json()["total"])

    tick = timedelta(microseconds=1)
    assert await total(created_from=MOMENT) == 1
    assert await total(created_from=MOMENT + tick) == 0
    assert await total(created_to=MOMENT) == 0
    assert await total(created_to=MOMENT + tick) == 1


async def test_a_moment_without_an_offset_is_refused(client: Client) -> None:
    """A15: by the API with a 422, and by the column for every writer."""
    for name in ("created_from", "created_to"):
        response = await client.get("/posts", params={name: "2026-03-01T12:00:00.123456"})
        assert response.status_code == 422
        assert response.json()["errors"][0]["field"] == name
    with pytest.raises(StatementError, match="time zone"):
        await add(client.database, User(created_at=MOMENT.replace(tzinfo=None)))


async def test_a_cursor_stands_between_moments_a_microsecond_apart(client: Client) -> None:
    """A15, A42: none is shown twice, none left out."""
    ana = await client.user()
    ids = [(await ana.write(f"Post {number}"))["id"] for number in range(5)]
    async with client.database.begin() as session:
        for number, row in enumerate(ids):
            post = await session.get_one(Post, row)
            post.created_at = MOMENT + timedelta(microseconds=number // 2)
    seen: list[int] = []
    params: dict[str, Any] = {"page_size": 1, "sort": "created_at"}
    while True:
        page = (await client.get("/posts", params=params)).json()
        seen += [post["id"] for post in page["items"]]
        if page["next_cursor"] is None:
            break
        params["cursor"] = page["next_cursor"]
    assert seen == ids


# --- Sessions ------------------------------------------------------------------------------------


async def answers(database: Database, *questions: str) -> list[Any]:
    async with database.begin() as session:
        return [await session.scalar(text(question)) for question in questions]


@on_mariadb
async def test_a_mariadb_session_is_strict_and_bounded(database: Database) -> None:
    names = (
        "tx_isolation",
        "time_zone",
        "max_statement_time",
        "innodb_lock_wait_timeout",
        "character_set_client",
        "character_set_connection",
        "character_set_results",
        "sql_mode",
    )
    *found, modes = await answers(database, *(f"SELECT @@SESSION.{name}" for name in names))
    assert found == [
        "READ-COMMITTED",
        "+00:00",
        STATEMENT_SECONDS,
        LOCK_WAIT_SECONDS,
        "utf8mb4",
        "utf8mb4",
        "utf8mb4",
    ]
    assert {"STRICT_ALL_TABLES", "NO_ZERO_DATE", "NO_ENGINE_SUBSTITUTION"} <= {*modes.split(",")}


@on_postgresql
async def test_a_postgresql_session_is_in_utc_and_bounded(database: Database) -> None:
    names = ("transaction_isolation", "timezone", "statement_timeout", "lock_timeout")
    found = await answers(database, *(f"SELECT current_setting('{name}')" for name in names))
    assert found == ["read committed", "UTC", f"{STATEMENT_SECONDS}s", f"{LOCK_WAIT_SECONDS}s"]


@on_sqlite
async def test_an_sqlite_connection_logs_ahead_and_checks_foreign_keys(database: Database) -> None:
    """A12: PRAGMA foreign_keys=1; and WAL. Waiting for other writers is not left to SQLite,
    which would hold up the event loop."""
    names = ("foreign_keys", "journal_mode", "busy_timeout", "synchronous")
    found = await answers(database, *(f"PRAGMA {name}" for name in names))
    assert found == [1, "wal", 0, 2]


async def test_a_row_that_points_nowhere_is_refused(database: Database) -> None:
    """A12: by every database, SQLite too."""
    with pytest.raises(IntegrityError):
        await add(database, PostTag(post_id=2**40, tag_id=2**40))


@on_servers
async def test_text_longer_than_its_column_is_refused(database: Database) -> None:
    """FACTS: without strict mode MariaDB would cut it."""
    with pytest.raises(DBAPIError):
        await add(database, Tag(name="x" * 51))


async def add(database: Database, row: Base) -> None:
    async with database.begin() as session:
        session.add(row)
