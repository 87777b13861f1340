"""The migration that counts tags: the counts are right, also after an interruption."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Connection, insert, text

from app.models.base import utc_now
from app.models.posts import Post
from app.models.tags import PostTag
from app.models.users import User
from tests.support.schema import KilledError, alembic, connected, empty_database, killed_at

BEFORE, COUNTED = "0005", "0006"
TAGS = 600  # more than are counted at once


@pytest.fixture
def url(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A database without tables, of this test alone, on the server of the common one."""
    monkeypatch.setenv("DATA_DIR", str(tmp_path))
    with empty_database(database_url, tmp_path) as found:
        yield found


def fill(connection: Connection) -> dict[str, int]:
    """Tags that have a few posts, some of them drafts or in the trash; the right counts."""
    now = utc_now()
    ana = {"id": 1, "email": "a@example.com", "email_key": "a@example.com", "name": "Ana"}
    connection.execute(insert(User).values(ana | {"locale": "en"}))
    posts = [
        {"id": 1, "status": "published", "deleted_at": None},
        {"id": 2, "status": "published", "deleted_at": None},
        {"id": 3, "status": "draft", "deleted_at": None},
        {"id": 4, "status": "published", "deleted_at": now},
    ]
    common = {"author_id": 1, "title": "One", "content": "", "published_at": None}
    connection.execute(insert(Post), [common | each for each in posts])
    names = [{"id": n, "name": f"tag {n}"} for n in range(1, TAGS + 1)]
    # Past the model, which knows the count.
    connection.execute(text("INSERT INTO tags (id, name) VALUES (:id, :name)"), names)
    links = [
        {"post_id": post, "tag_id": tag}
        for tag in range(1, TAGS + 1)
        for post in (1, 2, 3, 4)
        if tag % (post + 1) == 0
    ]
    connection.execute(insert(PostTag), links)
    return {f"tag {n}": (n % 2 == 0) + (n % 3 == 0) for n in range(1, TAGS + 1)}


def counts(url: str) -> dict[str, int]:
    with connected(url) as connection:
        found = connection.execute(text("SELECT name, post_count FROM tags"))
        return {row.name: row.post_count for row in found}


def test_what_is_there_is_counted(url: str) -> None:
    alembic(url, "upgrade", BEFORE)
    with connected(url) as connection:
        right = fill(connection)
    alembic(url, "upgrade", COUNTED)
    assert counts(url) == right
    alembic(url, "downgrade", BEFORE)
    alembic(url, "upgrade", COUNTED)
    assert counts(url) == right


@pytest.mark.parametrize("number", [1, 2])
def test_it_can_be_cut_off_at_each_index(url: str, number: int) -> None:
    alembic(url, "upgrade", BEFORE)
    with connected(url) as connection:
        right = fill(connection)
    with killed_at(number) as reached, pytest.raises(KilledError):
        alembic(url, "upgrade", COUNTED)
    assert "CREATE INDEX ix_tags" in reached[-1]
    alembic(url, "upgrade", COUNTED)
    assert counts(url) == right


def test_it_can_be_cut_off_while_it_counts(url: str) -> None:
    """As servers are left then: all in place, some tags counted, the revision not noted."""
    alembic(url, "upgrade", BEFORE)
    with connected(url) as connection:
        right = fill(connection)
    alembic(url, "upgrade", COUNTED)
    with connected(url) as connection:
        connection.execute(text("UPDATE tags SET post_count = 0 WHERE id > 100"))
        connection.execute(text(f"UPDATE alembic_version SET version_num = '{BEFORE}'"))
    assert counts(url) != right
    alembic(url, "upgrade", COUNTED)
    assert counts(url) == right
