"""The doctor looks at what is in a database: migrations, accounts, mails and tables."""

from __future__ import annotations

import asyncio
import secrets
from pathlib import Path

import pytest
from sqlalchemy.engine import make_url

from app.cli.doctor.findings import Verdict
from app.models.outbox import MailState
from tests.conftest import migrate
from tests.support.client import Client
from tests.support.commands import SetEnv
from tests.support.diagnosis import Diagnosis, OwnDatabase, diagnose, execute, migrated_file
from tests.support.mails import put

OK, WARN, FAIL = Verdict.ok, Verdict.warn, Verdict.fail
on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
servers = pytest.mark.parametrize("kind", ["mariadb", "postgresql"])


_DEFAULTS = {"mariadb": "CHARACTER SET utf8mb4", "postgresql": ""}


# --- What is in it -------------------------------------------------------------------------------


async def state_of(url: str, set_env: SetEnv) -> Diagnosis:
    set_env(database_url=url)
    return await diagnose()


async def test_migrations_behind_and_ahead_are_told(set_env: SetEnv, tmp_path: Path) -> None:
    url = await asyncio.to_thread(migrated_file, tmp_path, "0001")
    found = await state_of(url, set_env)
    behind = found.of("migrations", "at 0001, behind")
    assert (behind.verdict, behind.remedy) == (FAIL, "Run scripts/migrate.")
    await asyncio.to_thread(migrate, url, tmp_path)
    assert (await state_of(url, set_env)).of("migrations", "the newest").verdict is OK
    await execute(url, "UPDATE alembic_version SET version_num = '9000'")
    ahead = await state_of(url, set_env)
    assert ahead.of("migrations", "at 9000").verdict is WARN, "a newer one beside ours is no fault"
    assert "admins" in ahead.checks()
    await execute(url, "UPDATE alembic_version SET version_num = 'ae1027a6acf'")
    strange = (await state_of(url, set_env)).of("migrations", "to another application")
    assert (strange.verdict, "of its own" in (strange.remedy or "")) == (FAIL, True)


async def test_a_database_without_tables_is_told(set_env: SetEnv, tmp_path: Path) -> None:
    (tmp_path / "empty.db").touch()
    found = await state_of(f"sqlite:///{tmp_path}/empty.db", set_env)
    assert found.of("migrations").message == "there are no tables"


@on_sqlite
@pytest.mark.usefixtures("same_database")
async def test_nobody_who_can_administrate_is_told(client: Client) -> None:
    found = await diagnose()
    assert found.of("admins").remedy == "Run scripts/create-admin."
    assert found.of("admins").verdict is FAIL
    await client.admin()
    assert (await diagnose()).of("admins").verdict is OK


@on_sqlite
@pytest.mark.usefixtures("same_database")
async def test_mails_that_do_not_leave_are_told(client: Client) -> None:
    assert (await diagnose()).verdicts("outbox") == [OK, OK]
    await put(client.database, MailState.pending, due=-120)
    assert (await diagnose()).verdicts("outbox") == [WARN, OK]
    await put(client.database, MailState.pending, due=-1_200)
    await put(client.database, MailState.dead, due=-9_000)
    found = await diagnose()
    assert found.verdicts("outbox") == [FAIL, WARN]
    assert found.of("outbox", "2 mails wait").verdict is FAIL
    assert found.of("outbox", "1 mails were given up").verdict is WARN


# --- Tables --------------------------------------------------------------------------------------


async def test_what_was_dropped_by_hand_is_told(tmp_path: Path, set_env: SetEnv) -> None:
    url = await asyncio.to_thread(migrated_file, tmp_path)
    set_env(database_url=url)
    await execute(url, "DROP INDEX ix_posts_by_title", "DROP TABLE outbox")
    found = await diagnose()
    assert found.of("schema", "ix_posts_by_title").verdict is WARN
    assert found.of("schema", "missing: outbox").verdict is FAIL


@servers
async def test_what_a_user_may_not_do_and_what_was_dropped_is_told(
    kind: str, set_env: SetEnv, tmp_path: Path, own_database: OwnDatabase
) -> None:
    """With SELECT alone everything that writes would be a 500."""
    async with own_database(kind, _DEFAULTS[kind]) as url:
        await asyncio.to_thread(migrate, url, tmp_path)
        name, where = f"reader_{secrets.token_hex(4)}", make_url(url).database
        on_posts = " ON posts" if kind == "mariadb" else ""
        await execute(
            url,
            f"DROP INDEX ix_posts_by_title{on_posts}",
            "ALTER TABLE audit_events DROP COLUMN ip",
            *{
                "mariadb": (
                    f"CREATE USER {name} IDENTIFIED BY 'reader-pass'",
                    f"GRANT SELECT ON {where}.* TO {name}",
                ),
                "postgresql": (
                    f"CREATE USER {name} PASSWORD 'reader-pass'",
                    f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {name}",
                ),
            }[kind],
        )
        try:
            reader = make_url(url).set(username=name, password="reader-pass")
            set_env(database_url=reader.render_as_string(hide_password=False))
            found = await diagnose()
        finally:
            owned = [f"DROP OWNED BY {name}"] if kind == "postgresql" else []
            await execute(url, *owned, f"DROP USER {name}")
    finding = found.of("privileges")
    assert (finding.verdict, "GRANT" in (finding.remedy or "")) == (FAIL, True)
    assert "more" in finding.message
    assert found.of("schema", "audit_events.ip").verdict is FAIL
    assert found.of("schema", "ix_posts_by_title").verdict is WARN
