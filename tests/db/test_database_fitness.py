"""Databases that cannot be used: without all of Unicode, or with tables of others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, inspect
from sqlalchemy.engine import make_url

from app.cli.backup import BackupError, store_of
from app.db import engine as database
from app.db import fitness
from app.models import Base
from app.server import serving
from tests.conftest import migrate
from tests.support.commands import SetEnv, invoke
from tests.support.diagnosis import OwnDatabase, diagnose, execute
from tests.support.process import environment, run_command
from tests.support.proxy import proxy_for
from tests.support.schema import connected, empty_database

VERSION = "CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL PRIMARY KEY)"
USERS = "CREATE TABLE users (id INTEGER NOT NULL PRIMARY KEY, login VARCHAR(20))"


def at(revision: str) -> str:
    return f"INSERT INTO alembic_version VALUES ('{revision}')"


STRANGE = {
    "a revision of another tool": [VERSION, at("ae1027a6acf")],
    "a revision like ours, without our tables": [VERSION, at("0003")],
    "one that is higher than ours": [VERSION, at("9000"), USERS],
    "two revisions": [VERSION, at("0001"), at("0002")],
    "the zeroth": [VERSION, at("0000")],
    "another kind of table": ["CREATE TABLE alembic_version (id INTEGER)"],
    "their users": [USERS],
    "their users, and a table of revisions": [VERSION, USERS],
    "their tags": ["CREATE TABLE tags (id INTEGER, tag VARCHAR(9))"],
    "their tags, and a table of revisions": [VERSION, "CREATE TABLE tags (id INTEGER)"],
    "a view of theirs": ["CREATE VIEW posts AS SELECT 1 AS id"],
}


@pytest.fixture
async def empty(database_url: str, tmp_path: Path) -> AsyncIterator[str]:
    with empty_database(database_url, tmp_path) as url:
        yield url


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What uvicorn was asked to serve, instead of serving it."""
    calls: list[str] = []
    monkeypatch.setattr(serving, "serve", lambda app, *_, **__: calls.append(app))
    return calls


def objects(url: str) -> dict[str, list[str]]:
    with connected(url) as connection:
        looked = inspect(connection)
        names = sorted([*looked.get_table_names(), *looked.get_view_names()])
        return {name: [column["name"] for column in looked.get_columns(name)] for name in names}


async def refusals(*commands: str) -> list[str]:
    """The one line that each of these ends with."""
    lines = []
    for command in commands:
        result = await invoke(command)
        assert result.exit_code == 1, result.output
        line = str(result.exception)
        assert isinstance(result.exception, SystemExit)
        assert line.startswith("cimiento: ")
        assert "\n" not in line
        lines.append(line)
    return lines


@pytest.mark.parametrize("case", STRANGE)
async def test_a_database_of_others_is_left_as_it_is(
    empty: str, case: str, set_env: SetEnv, served: Sequence[str]
) -> None:
    await execute(empty, *STRANGE[case])
    before = objects(empty)
    set_env(database_url=empty)
    await refusals("migrate", "run")
    if "tags, and" not in case:  # which only a look at all our migrations shows
        await refusals("serve")
        assert served == []
        assert (await diagnose()).of("migrations").remedy
    assert objects(empty) == before


async def test_a_first_migration_that_is_under_way_is_ours(
    empty: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tables may be created between the look at them and the look at the revision."""
    await asyncio.to_thread(migrate, empty, tmp_path)
    look = fitness._named_like_ours
    looks: Iterator[list[str]] = iter([[]])
    monkeypatch.setattr(
        fitness, "_named_like_ours", lambda *given: next(looks, None) or look(*given)
    )
    with connected(empty) as connection:
        assert fitness.strangeness(connection, Base.metadata.tables.keys()) is None


async def test_the_script_ends_with_one_line(empty: str, tmp_path: Path) -> None:
    await execute(empty, *STRANGE["a revision of another tool"])
    env = environment(database_url=empty, data_dir=tmp_path)
    status, out, err = await run_command("migrate", cwd=tmp_path, env=env)
    assert (status, out) == (1, "")
    assert err == (
        "cimiento: not migrated: alembic_version belongs to another application:"
        " revision ae1027a6acf\n"
    )


async def test_tables_of_others_beside_ours_do_not_matter(
    empty: str, set_env: SetEnv, served: Sequence[str]
) -> None:
    await execute(empty, "CREATE TABLE invoices (id INTEGER)")
    set_env(database_url=empty)
    assert (await invoke("run")).exit_code == 0
    assert len(served) == 1
    assert {"invoices", "users"} <= objects(empty).keys()


async def test_a_table_that_a_later_migration_makes_is_in_its_way(
    empty: str, set_env: SetEnv, tmp_path: Path
) -> None:
    await asyncio.to_thread(migrate, empty, tmp_path, "0001")
    await execute(empty, "CREATE TABLE idempotency_keys (id INTEGER)")
    before = objects(empty)
    set_env(database_url=empty)
    [line] = await refusals("migrate")
    assert "the table idempotency_keys belongs to another application" in line
    assert objects(empty) == before


async def test_a_run_that_was_cut_off_is_ours(empty: str, set_env: SetEnv, tmp_path: Path) -> None:
    """As MariaDB leaves it: with the tables of the next revision."""
    await asyncio.to_thread(migrate, empty, tmp_path)
    await execute(empty, "UPDATE alembic_version SET version_num = '0001'")
    set_env(database_url=empty)
    assert (await invoke("migrate")).exit_code == 0


async def test_a_database_that_does_not_answer_is_waited_for_elsewhere(
    set_env: SetEnv, served: Sequence[str], closed_port: int
) -> None:
    """As when all is started at once; /health/ready tells."""
    set_env(database_url=f"postgresql://postgres@127.0.0.1:{closed_port}/x")
    assert (await invoke("serve")).exit_code == 0
    assert len(served) == 1


@pytest.mark.parametrize("database_url", ["mariadb", "postgresql"], indirect=True)
async def test_a_frozen_database_holds_up_no_start(
    database_url: str,
    set_env: SetEnv,
    served: Sequence[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("app.cli.migrate.LOOK_SECONDS", 0.2)
    async with proxy_for(make_url(database_url)) as proxy:
        proxy.freeze()
        set_env(database_url=proxy.url)
        async with asyncio.timeout(10):
            assert (await invoke("serve")).exit_code == 0
        proxy.thaw()
    assert len(served) == 1


async def test_no_file_is_made_by_looking(
    set_env: SetEnv, served: Sequence[str], tmp_path: Path
) -> None:
    set_env(database_url=f"sqlite:///{tmp_path}/nothing.db")
    assert (await invoke("serve")).exit_code == 0
    assert len(served) == 1
    assert not (tmp_path / "nothing.db").exists()


# --- Characters ----------------------------------------------------------------------------------


@pytest.fixture
async def latin(own_database: OwnDatabase) -> AsyncIterator[str]:
    """A database whose default cannot hold everything."""
    async with own_database("mariadb", "CHARACTER SET latin1") as url:
        yield url


ENCODED = "ENCODING '{}' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0"


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
async def test_postgresql_has_to_be_in_utf8(
    encoding: str, set_env: SetEnv, served: Sequence[str], own_database: OwnDatabase
) -> None:
    async with own_database("postgresql", ENCODED.format(encoding)) as url:
        set_env(database_url=url)
        for line in await refusals("migrate", "serve", "run"):
            assert f"the database's encoding is {encoding}" in line
        assert objects(f"{url}?client_encoding=utf8") == {}
        found = await diagnose()
    assert served == []
    assert found.of("charset").message == f"the database's encoding is {encoding}"
    assert found.failed()


async def test_the_tables_of_mariadb_have_to_hold_everything(
    latin: str, set_env: SetEnv, served: Sequence[str], tmp_path: Path
) -> None:
    await asyncio.to_thread(migrate, latin, tmp_path)
    set_env(database_url=latin)
    assert (await invoke("serve")).exit_code == 0, "in a database whose default is latin1"
    for charset in ("latin1", "utf8mb3"):
        await execute(latin, f"ALTER TABLE tags CONVERT TO CHARACTER SET {charset}")
        for line in await refusals("migrate", "serve"):
            assert f"tags.name is kept in {charset}" in line
    await execute(latin, "ALTER TABLE tags CONVERT TO CHARACTER SET utf8mb4")
    assert (await invoke("serve")).exit_code == 0
    assert len(served) == 2


async def test_connections_to_mariadb_have_to_carry_everything(
    latin: str, set_env: SetEnv, served: Sequence[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = database._engine

    def speaking_latin(*arguments: Any, **options: Any) -> Any:
        latin_engine = engine(*arguments, **options)
        latin = "SET NAMES latin1"
        event.listen(
            latin_engine.sync_engine, "connect", lambda raw, _: raw.cursor().execute(latin)
        )
        return latin_engine

    monkeypatch.setattr(database, "_engine", speaking_latin)
    set_env(database_url=latin)
    for line in await refusals("migrate", "serve"):
        assert "connections to the database speak latin1" in line
    assert served == []


# --- Schemas of PostgreSQL -----------------------------------------------------------------------


@pytest.fixture
async def postgresql(own_database: OwnDatabase) -> AsyncIterator[str]:
    async with own_database("postgresql") as url:
        yield url


async def test_everything_is_in_the_schema_of_the_url(
    postgresql: str, set_env: SetEnv, served: Sequence[str], tmp_path: Path
) -> None:
    url = f"{postgresql}?options=-csearch_path%3Dapp"
    set_env(database_url=url)
    for line in await refusals("migrate", "serve"):
        assert "search_path names no schema that exists" in line
    # Tables of other applications in another schema do not matter, whatever their names.
    await execute(postgresql, USERS, "INSERT INTO users VALUES (1, 'x')", "CREATE SCHEMA app")
    assert (await invoke("run")).exit_code == 0
    assert len(served) == 1
    assert objects(postgresql).keys() == {"users"}
    assert {"users", "posts", "alembic_version"} <= objects(url).keys()
    await execute(url, "INSERT INTO tags (name, post_count) VALUES ('kept', 0)")
    found = await diagnose()
    assert found.of("migrations").message.endswith("the newest")
    assert (await invoke("backup", str(tmp_path / "copy"))).exit_code == 0
    await execute(url, "DELETE FROM tags")
    restored = await invoke("restore", str(tmp_path / "copy"), "--force")
    assert restored.exit_code == 0, restored.exception
    with connected(url) as connection:
        assert connection.exec_driver_sql("SELECT name FROM tags").scalar_one() == "kept"
    with connected(postgresql) as connection:
        assert connection.exec_driver_sql("SELECT login FROM users").scalar_one() == "x"
    await execute(postgresql, "CREATE SCHEMA other")
    set_env(database_url=f"{postgresql}?options=-csearch_path%3Dother")
    refused = await invoke("restore", str(tmp_path / "copy"), "--force")
    assert "is of the schema app, DATABASE_URL means other" in str(refused.exception)


async def test_a_backup_of_a_schema_that_cannot_be_looked_up_is_refused(
    tmp_path: Path, closed_port: int
) -> None:
    url = make_url(f"postgresql://postgres@127.0.0.1:{closed_port}/x?options=-cjit%3Doff")
    with pytest.raises(BackupError, match="PostgreSQL failed: "):
        store_of(url).dump(tmp_path / "copy")
