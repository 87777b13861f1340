"""The migrations: up, down, interrupted; and the schema that they build."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import select, text
from sqlalchemy.orm import Session

from app.core.permissions import SYSTEM_ROLES, USER_ROLE
from app.models import Base
from app.models.audit_events import AuditAct, AuditEvent
from app.models.base import utc_now
from app.models.idempotency_keys import IdempotencyKey
from app.models.one_time_tokens import OneTimeToken, Purpose
from app.models.outbox import Mail, MailKind
from app.models.posts import Post
from app.models.refresh_tokens import RefreshToken
from app.models.roles import Role, RolePermission
from app.models.sessions import LoginSession
from app.models.tags import Tag
from app.models.users import User
from app.resources import RESOURCES
from tests.support.schema import (
    KilledError,
    alembic,
    catalogue,
    connected,
    empty_database,
    killed_at,
    rows,
    tables,
)

EVERY_TABLE = set(Base.metadata.tables)
on_mariadb = pytest.mark.parametrize("database_url", ["mariadb"], indirect=True)


@pytest.fixture
def url(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A database without tables, of this test alone, on the server of the common one."""
    monkeypatch.setenv("DATA_DIR", str(tmp_path))
    with empty_database(database_url, tmp_path) as found:
        yield found


def fill(url: str) -> None:
    """Put at least one row into every table."""
    with connected(url) as connection, Session(connection) as session:
        user_role = session.scalars(select(Role).where(Role.name == "user")).one()
        role = Role(name="lector", description="Lee ñ 😀", granted=[RolePermission(permission="x")])
        ana = User(email="Ana@example.com", email_key="ana@example.com", name="Ana ✓")
        gone = User(email="gone@example.com", email_key="gone@example.com", name="Gone")
        gone.soft_delete()
        ana.roles = [user_role, role]
        post = Post(title="Título 😀", content="…", author=ana, tag_rows=[Tag(name="ñandú")])
        session.add_all([ana, gone, post])
        session.flush()
        now = utc_now()
        session.add_all(
            [
                Mail(kind=MailKind.welcome, user_id=ana.id, recipient=ana.email, locale="es"),
                login := LoginSession(
                    user_id=ana.id, last_used_at=now, expires_at=now + timedelta(days=1)
                ),
                OneTimeToken(
                    user_id=ana.id,
                    purpose=Purpose.verify_email,
                    token_hash="1" * 64,
                    email=ana.email,
                    expires_at=now,
                ),
                AuditEvent(act=AuditAct.login_succeeded, details={"ñ": "😀"}),
                IdempotencyKey(
                    key_hash="3" * 64,
                    user_id=ana.id,
                    fingerprint="4" * 64,
                    status=201,
                    headers={"location": "/"},
                    body="😀",
                    expires_at=now,
                ),
            ]
        )
        session.flush()
        session.add(RefreshToken(session_id=login.id, token_hash="2" * 64))
        session.flush()
        assert all(rows(connection).values()), "a table was forgotten"


def test_the_migrations_build_what_the_models_say(url: str, tmp_path: Path) -> None:
    """A13: `alembic check` finds nothing to add, and the database describes both alike."""
    alembic(url, "upgrade", "head")
    alembic(url, "check")
    with connected(url) as connection:
        migrated = catalogue(connection)
    with empty_database(url, tmp_path) as other:
        with connected(other) as connection:
            Base.metadata.create_all(connection)
        with connected(other) as connection:
            assert migrated == catalogue(connection)
    assert set(migrated) == EVERY_TABLE
    assert sum(map(len, migrated.values())) > 10 * len(EVERY_TABLE), "it was really described"


def test_down_to_nothing_and_up_again(url: str) -> None:
    """A13: with data in the tables; the way down from the first revision drops all of it."""
    alembic(url, "upgrade", "head")
    fill(url)
    with connected(url) as connection:
        before = catalogue(connection)
    alembic(url, "downgrade", "base")
    with connected(url) as connection:
        assert tables(connection) == set()
        assert connection.scalar(text("SELECT count(*) FROM alembic_version")) == 0
    alembic(url, "upgrade", "head")
    with connected(url) as connection:
        assert catalogue(connection) == before
        assert system_roles(url) == SYSTEM_ROLES
    alembic(url, "check")


@pytest.mark.parametrize("number", [2, 7, 14, 31, 33])
def test_a_run_that_was_cut_off_can_be_run_again(url: str, number: int) -> None:
    """A13: at the first and the last tables, among the indexes, among the system roles; twice.

    MariaDB keeps every table created so far, as each DDL statement commits by itself.
    """
    for at in (number, 6):
        with killed_at(at) as reached, pytest.raises(KilledError):
            alembic(url, "upgrade", "head")
        assert len(reached) == at
        with connected(url) as connection:
            left = tables(connection)
        assert bool(left) == (url.startswith("mysql") and at > 2)
    alembic(url, "upgrade", "head")
    alembic(url, "check")
    with connected(url) as connection:
        assert tables(connection) == EVERY_TABLE
    assert system_roles(url) == SYSTEM_ROLES


@pytest.mark.parametrize("number", [1, 2, 3])
def test_the_idempotency_keys_can_be_cut_off_too(url: str, number: int) -> None:
    """A13: at the table and at each of its indexes, over a database in use."""
    alembic(url, "upgrade", "0002")
    with connected(url) as connection:
        before = tables(connection)
    with killed_at(number) as reached, pytest.raises(KilledError):
        alembic(url, "upgrade", "0003")
    assert "idempotency_keys" in reached[-1]
    with connected(url) as connection:
        is_there = "idempotency_keys" in tables(connection)
    assert is_there == (url.startswith("mysql") and number > 1)
    alembic(url, "upgrade", "head")
    alembic(url, "check")
    alembic(url, "downgrade", "0002")
    with connected(url) as connection:
        assert tables(connection) == before


@pytest.mark.parametrize("database_url", ["sqlite", "postgresql"], indirect=True)
@pytest.mark.parametrize("number", [1, 5])
def test_the_listing_indexes_can_be_cut_off_too(url: str, number: int) -> None:
    """A13: at the first and among the others; MariaDB makes those of a table by one ALTER TABLE."""
    alembic(url, "upgrade", "head")
    fill(url)
    alembic(url, "downgrade", "0004")
    with connected(url) as connection:
        before = catalogue(connection)
    with killed_at(number) as reached, pytest.raises(KilledError):
        alembic(url, "upgrade", "0005")
    assert "CREATE INDEX" in reached[-1]
    alembic(url, "upgrade", "head")
    alembic(url, "check")
    alembic(url, "downgrade", "0005")
    with killed_at(number), pytest.raises(KilledError):
        alembic(url, "downgrade", "0004")
    alembic(url, "downgrade", "0004")
    with connected(url) as connection:
        assert catalogue(connection) == before


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_an_invalid_index_is_made_again(url: str) -> None:
    """A13: what CREATE INDEX CONCURRENTLY leaves behind when it is cut off."""
    alembic(url, "upgrade", "0004")
    with connected(url) as connection:
        connection.exec_driver_sql("CREATE INDEX ix_posts_by_title ON posts (title)")
        invalid = "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'ix_posts_by_title'"
        connection.exec_driver_sql(f"{invalid}::regclass")
    alembic(url, "upgrade", "0005")
    with connected(url) as connection:
        described = "SELECT indexdef FROM pg_indexes WHERE indexname = 'ix_posts_by_title'"
        assert "title, id, deleted_at" in connection.execute(text(described)).scalar_one()
        valid = "SELECT bool_and(indisvalid) FROM pg_index"
        assert connection.execute(text(valid)).scalar_one()


def test_running_again_over_existing_tables_keeps_their_rows(url: str) -> None:
    """A13: as after a run that did everything but write down its revision."""
    alembic(url, "upgrade", "head")
    fill(url)
    with connected(url) as connection:
        before = rows(connection)
        connection.exec_driver_sql("DELETE FROM alembic_version")
    alembic(url, "upgrade", "head")
    with connected(url) as connection:
        assert rows(connection) == before
    alembic(url, "check")


@on_mariadb
def test_the_tables_are_utf8mb4_and_innodb_whatever_the_default(url: str) -> None:
    """FACTS: the database's default charset may be latin1, as it is here."""
    alembic(url, "upgrade", "head")
    with connected(url) as connection:
        assert connection.scalar(text("SELECT @@character_set_database")) == "latin1"
        described = connection.execute(
            text(
                "SELECT table_name, engine, table_collation FROM information_schema.tables"
                " WHERE table_schema = DATABASE() AND table_name <> 'alembic_version'"
            )
        )
        built = {name: (engine, collation) for name, engine, collation in described}
        charsets = connection.scalars(
            text(
                "SELECT DISTINCT character_set_name FROM information_schema.columns WHERE"
                " table_schema = DATABASE() AND table_name <> 'alembic_version'"
                # What is searched is in ASCII.
                " AND character_set_name IS NOT NULL AND column_name <> 'words'"
            )
        )
        assert set(charsets) == {"utf8mb4"}
    assert built == dict.fromkeys(EVERY_TABLE, ("InnoDB", "utf8mb4_unicode_ci"))


@on_mariadb
def test_every_moment_keeps_its_microseconds(url: str) -> None:
    """A15: DATETIME(6); MariaDB's default would drop them silently."""
    alembic(url, "upgrade", "head")
    with connected(url) as connection:
        types = connection.execute(
            text(
                "SELECT data_type, datetime_precision FROM information_schema.columns"
                " WHERE table_schema = DATABASE() AND data_type IN ('datetime', 'timestamp')"
            )
        ).all()
    assert len(types) > 10
    assert {tuple(row) for row in types} == {("datetime", 6)}


def system_roles(url: str) -> set[str]:
    """The names of all roles, each once; and `user` may write posts."""
    with connected(url) as connection:
        names = list(connection.scalars(select(Role.name)))
        granted = connection.execute(
            select(Role.name, RolePermission.permission).join(
                RolePermission, RolePermission.role_id == Role.id
            )
        ).all()
    assert len(names) == len(set(names))
    given = [(USER_ROLE, str(name)) for each in RESOURCES for name in each.granted_to_users]
    assert sorted(tuple(row) for row in granted) == sorted(given)
    return set(names)
