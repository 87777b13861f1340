"""The migration of session scopes: a downgrade ends the sessions that it limited."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import insert, text

from app.models.base import utc_now
from app.models.sessions import LoginSession
from app.models.users import User
from tests.support.schema import alembic, connected, empty_database


@pytest.fixture
def url(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A database without tables, of this test alone, on the server of the common one."""
    monkeypatch.setenv("DATA_DIR", str(tmp_path))
    with empty_database(database_url, tmp_path) as found:
        yield found


def test_limited_sessions_do_not_outlive_their_limits(url: str) -> None:
    alembic(url, "upgrade", "0008")
    now = utc_now()
    ana = {"id": 1, "email": "a@example.com", "email_key": "a@example.com", "name": "Ana"}
    login = {"user_id": 1, "last_used_at": now, "expires_at": now + timedelta(days=1)}
    with connected(url) as connection:
        connection.execute(insert(User).values(ana | {"locale": "en"}))
        for number, scope in ((1, None), (2, "posts:write")):
            connection.execute(insert(LoginSession).values(login | {"id": number, "scope": scope}))
    alembic(url, "downgrade", "0007")
    alembic(url, "upgrade", "0008")
    with connected(url) as connection:
        live = connection.execute(text("SELECT id FROM sessions WHERE ended_at IS NULL"))
        assert [row.id for row in live] == [1]
