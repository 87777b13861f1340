"""Backup and restore: what is restored, and which files are refused."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx2
import pytest
from sqlalchemy import inspect
from sqlalchemy.engine import make_url

from app.cli.backup import BackupError, store_of
from tests.conftest import SECRET, migrate
from tests.support.backups import unseal
from tests.support.client import Client, Person
from tests.support.commands import SetEnv, invoke
from tests.support.people import new_user
from tests.support.process import environment, serving
from tests.support.schema import connected, empty_database, rows, tables

on_servers = pytest.mark.parametrize("database_url", ["mariadb", "postgresql"], indirect=True)
on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
NOTE = "Logins and links ended since the backup are valid again: docs/operations.md\n"


@pytest.fixture
def empty(database_url: str, tmp_path: Path) -> Iterator[str]:
    """A database without tables."""
    with empty_database(database_url, tmp_path) as url:
        yield url


@pytest.fixture
async def author(client: Client) -> Person:
    return await new_user(client)


@pytest.fixture
async def backup(author: Person, set_env: SetEnv, database_url: str, tmp_path: Path) -> Path:
    """A backup of a database with people and posts in it."""
    await author.post("/posts", {"title": "Ñandú 😀", "content": "a'b\\c\"\r\n\t%", "tags": ["x"]})
    set_env(database_url=database_url)
    file = tmp_path / "one.backup"
    done = await invoke("backup", str(file))
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith(f"{file}: {len(bytes_of(file)):,} bytes, revision ")
    assert done.stderr == "Not in it: SECRET_KEY, and what lies under DATA_DIR.\n"
    return file


def bytes_of(file: Path) -> bytes:
    return file.read_bytes()


def content(url: str) -> dict[str, list[Any]]:
    with connected(url) as connection:
        return rows(connection)


# --- There and back ----------------------------------------------------------------------------


async def test_a_backup_fills_an_empty_database(
    backup: Path, empty: str, database_url: str, set_env: SetEnv
) -> None:
    set_env(database_url=empty)
    done = await invoke("restore", str(backup))
    assert (done.exit_code, done.stderr) == (0, NOTE)
    assert content(empty) == content(database_url)
    assert content(empty)["posts"]
    with connected(empty) as connection:
        assert "alembic_version" in inspect(connection).get_table_names()


async def test_a_database_with_tables_is_replaced_only_by_force(
    backup: Path, empty: str, database_url: str, set_env: SetEnv, tmp_path: Path
) -> None:
    await asyncio.to_thread(migrate, empty, tmp_path)
    with connected(empty) as connection:
        connection.exec_driver_sql("CREATE TABLE later (id INTEGER)")
    before = content(empty)
    set_env(database_url=empty)
    refused = await invoke("restore", str(backup))
    assert refused.exit_code == 1
    assert "the database has tables already" in str(refused.exception)
    assert content(empty) == before
    assert (await invoke("restore", str(backup), "--force")).exit_code == 0
    assert content(empty) == content(database_url)
    with connected(empty) as connection:
        assert "later" not in tables(connection), "tables of another version are dropped too"


async def test_a_backup_is_for_its_owner_alone_and_replaces_no_other(backup: Path) -> None:
    assert is_private(backup)
    before = bytes_of(backup)
    again = await invoke("backup", str(backup))
    assert str(again.exception) == f"cimiento: {backup} exists already"
    assert bytes_of(backup) == before
    assert leftovers(backup.parent) == []


async def test_a_backup_into_a_folder_that_is_missing_says_so(backup: Path) -> None:
    missing = backup.parent / "missing"
    refused = await invoke("backup", str(missing / "today.backup"))
    assert refused.exit_code == 1
    expected = f"cimiento: the folder {missing} does not exist: make it first"
    assert str(refused.exception) == expected
    assert not missing.exists()


def is_private(file: Path) -> bool:
    return stat.S_IMODE(file.stat().st_mode) == 0o600


def leftovers(folder: Path) -> list[Path]:
    """What is left of backups that never became whole."""
    return [path for path in content_of(folder) if path.name.startswith(".")]


def content_of(folder: Path) -> list[Path]:
    return [*folder.iterdir()]


async def test_a_backup_that_was_cut_off_is_refused(
    backup: Path, empty: str, set_env: SetEnv
) -> None:
    whole = bytes_of(backup)
    set_env(database_url=empty)
    for part in (whole[: len(whole) // 2], b"", b"something else"):
        await asyncio.to_thread(backup.write_bytes, part)
        refused = await invoke("restore", str(backup))
        assert isinstance(refused.exception, SystemExit), refused.output
        assert str(refused.exception).startswith("cimiento: ")
        with connected(empty) as connection:
            assert tables(connection) == set()


async def test_a_backup_is_made_of_what_was_migrated(
    empty: str, set_env: SetEnv, tmp_path: Path
) -> None:
    with connected(empty) as connection:
        connection.exec_driver_sql("CREATE TABLE other (id INTEGER)")
    set_env(database_url=empty)
    refused = await invoke("backup", str(tmp_path / "none.backup"))
    assert "never migrated" in str(refused.exception)
    assert not (tmp_path / "none.backup").exists()
    assert leftovers(tmp_path) == []


@on_sqlite
@pytest.mark.parametrize(
    ("revision", "note"), [("0001", "older version: run scripts/migrate"), ("9999", "newer")]
)
async def test_the_version_a_backup_is_of_is_told(
    backup: Path, empty: str, set_env: SetEnv, revision: str, note: str
) -> None:
    unseal(backup)
    with closing(sqlite3.connect(backup)) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = ?", [revision])
    set_env(database_url=empty)
    done = await invoke("restore", str(backup))
    assert done.exit_code == 0
    assert f"revision {revision}." in done.stdout
    assert note in done.stderr


# --- SQLite ------------------------------------------------------------------------------------


@on_sqlite
async def test_a_damaged_backup_is_refused(backup: Path, empty: str, set_env: SetEnv) -> None:
    unseal(backup)
    with closing(sqlite3.connect(backup)) as connection, connection:
        connection.execute("UPDATE posts SET author_id = 4711")
    set_env(database_url=empty)
    assert str((await invoke("restore", str(backup))).exception) == f"cimiento: {backup} is damaged"


@on_sqlite
async def test_what_was_deleted_for_good_is_not_in_a_backup(
    empty: str, set_env: SetEnv, tmp_path: Path
) -> None:
    """A file's pages keep what was deleted from them; a copy would hand it on."""
    # A file of its own: reading it here ends the locks of all connections of this process.
    await asyncio.to_thread(migrate, empty, tmp_path)
    mark = b"purged-and-gone"
    file = Path(make_url(empty).database or "")
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        for statement in (
            *("PRAGMA secure_delete=OFF", "CREATE TABLE notes (text VARCHAR)"),
            f"INSERT INTO notes VALUES ('{mark.decode()}')",
            *("DROP TABLE notes", "PRAGMA wal_checkpoint(TRUNCATE)"),
        ):
            connection.execute(statement)
    assert mark in bytes_of(file)
    set_env(database_url=empty)
    assert (await invoke("backup", str(tmp_path / "two.backup"))).exit_code == 0
    assert mark not in bytes_of(tmp_path / "two.backup")


async def test_no_database_is_made_where_there_is_none(set_env: SetEnv, tmp_path: Path) -> None:
    set_env(database_url=f"sqlite:///{tmp_path}/none.db")
    refused = await invoke("backup", str(tmp_path / "file"))
    assert str(refused.exception) == f"cimiento: there is no database at {tmp_path}/none.db"
    assert content_of(tmp_path) == []


def test_a_database_in_use_is_not_waited_for_for_ever(tmp_path: Path) -> None:
    for name in ("source.db", "target.db"):
        with closing(sqlite3.connect(tmp_path / name)) as connection, connection:
            connection.execute("CREATE TABLE one (id)")
    store = store_of(make_url(f"sqlite:///{tmp_path}/target.db"))
    with closing(sqlite3.connect(tmp_path / "target.db")) as other:
        other.execute("PRAGMA journal_mode=WAL")
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(BackupError, match="in use: stop the servers first"):
            store.load(tmp_path / "source.db")


def test_nor_is_a_backup_that_another_connection_has_locked(tmp_path: Path) -> None:
    for name in ("source.db", "target.db"):
        with closing(sqlite3.connect(tmp_path / name)) as connection, connection:
            connection.execute("CREATE TABLE one (id)")
    store = store_of(make_url(f"sqlite:///{tmp_path}/target.db"))
    with closing(sqlite3.connect(tmp_path / "source.db")) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(BackupError, match="in use"):
            store.load(tmp_path / "source.db")
        with pytest.raises(BackupError, match="in use"):
            store.check(tmp_path / "source.db")


def test_what_sqlite_says_is_passed_on(tmp_path: Path) -> None:
    target = tmp_path / "folder"
    target.mkdir()
    (tmp_path / "one.db").touch()
    with pytest.raises(BackupError, match="SQLite failed: "):
        store_of(make_url(f"sqlite:///{tmp_path}/one.db")).dump(target)


@on_sqlite
async def test_what_a_running_server_has_open_is_not_replaced(
    backup: Path, empty: str, set_env: SetEnv, tmp_path: Path
) -> None:
    """It would go on acknowledging writes, into what is no longer there."""
    await asyncio.to_thread(migrate, empty, tmp_path)
    env = environment(
        database_url=empty, data_dir=tmp_path, secret_key=SECRET, port=0, log_format="json"
    )
    set_env(database_url=empty)
    async with serving(tmp_path, env) as server, httpx2.AsyncClient(base_url=server.url) as http:
        assert (await http.get("/health/ready")).status_code == 200
        before = content(empty)
        refused = await invoke("restore", str(backup), "--force")
        assert str(refused.exception) == "cimiento: the database is in use: stop the servers first"
        assert content(empty) == before
        assert (await http.get("/health/ready")).status_code == 200
        await server.end(signal.SIGTERM)
    assert (await invoke("restore", str(backup), "--force")).exit_code == 0
    assert content(empty) != before


# --- Servers -----------------------------------------------------------------------------------


@on_servers
async def test_nothing_is_dropped_before_the_tools_are_there(
    backup: Path, empty: str, set_env: SetEnv, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with connected(empty) as connection:
        connection.exec_driver_sql("CREATE TABLE later (id INTEGER)")
    set_env(database_url=empty)
    monkeypatch.setenv("PATH", str(tmp_path / "none"))
    refused = await invoke("restore", str(backup), "--force")
    assert "is not installed: it comes with" in str(refused.exception)
    with connected(empty) as connection:
        assert tables(connection) == {"later"}


@on_servers
async def test_what_a_load_that_failed_has_left_is_told(
    backup: Path, empty: str, set_env: SetEnv
) -> None:
    with connected(empty) as connection:
        connection.exec_driver_sql("CREATE TABLE later (id INTEGER)")
        connection.exec_driver_sql("CREATE VIEW posts AS SELECT 1 AS id")
        is_mariadb = connection.dialect.name == "mysql"
    set_env(database_url=empty)
    refused = await invoke("restore", str(backup), "--force")
    complaint = str(refused.exception)
    assert "posts" in complaint
    if is_mariadb:
        assert "may be empty or incomplete now" in complaint
        with connected(empty) as connection:
            connection.exec_driver_sql("DROP VIEW posts")
        assert (await invoke("restore", str(backup), "--force")).exit_code == 0
    else:
        assert complaint.endswith("the database is as it was")
        with connected(empty) as connection:
            assert tables(connection) == {"later"}
