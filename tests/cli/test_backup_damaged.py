"""Damaged backups, and those of another application, are refused and change nothing."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy.engine import make_url

from app.cli.backup import BackupError, store_of
from app.cli.backup.contents import Contents, refuse_foreign
from app.db.migrations import columns_at, revisions
from tests.conftest import migrate
from tests.support.backup_trials import Trial
from tests.support.backups import unseal
from tests.support.commands import invoke
from tests.support.schema import connected, empty_database, rows

on_mariadb = pytest.mark.parametrize("database_url", ["mariadb"], indirect=True)
on_postgresql = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


# --- Damage ------------------------------------------------------------------------------------


async def test_a_bit_that_flipped_anywhere_is_told(trial: Trial) -> None:
    whole, before = trial.file.read_bytes(), trial.content()
    # Of the checksum's own line, the mark may go: the content then speaks for itself.
    for place in (*range(0, len(whole) - 100, len(whole) // 12), len(whole) - 40, len(whole) - 1):
        damaged = bytearray(whole)
        damaged[place] ^= 1
        trial.file.write_bytes(damaged)
        await trial.refusing_line()
    assert trial.content() == before


async def test_what_was_cut_off_or_went_on_is_told(trial: Trial) -> None:
    whole, before = trial.file.read_bytes(), trial.content()
    size = len(whole)
    for part in (0, 1, 15, 200, size // 3, size // 2, size - 200, size - 50, size - 1):
        trial.file.write_bytes(whole[:part])
        await trial.refusing_line()
    for more in (b"\0", b"\n", b"-- more\n", b"SELECT 1;\n"):
        trial.file.write_bytes(whole + more)
        await trial.refusing_line("is damaged")
    assert trial.content() == before


async def test_what_is_no_file_is_told(trial: Trial) -> None:
    trial.file.unlink()
    await trial.refused("there is no ")
    trial.file.mkdir()
    await trial.refused("is no file")
    trial.file.rmdir()
    for content in (b"", b"\0" * 10_000, b"<html>", b"\x1f\x8b\x08\0" * 30):
        trial.file.write_bytes(content)
        await trial.refused("is no backup of")


async def test_a_backup_of_an_earlier_version_has_no_checksum(trial: Trial) -> None:
    unseal(trial.file)
    assert (await invoke("restore", str(trial.file), "--force")).exit_code == 0
    assert trial.content()["posts"]


async def test_the_databases_own_tools_read_a_backup(trial: Trial, database_url: str) -> None:
    server = make_url(trial.target)
    if server.get_backend_name() == "sqlite":
        with closing(sqlite3.connect(trial.file)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            assert connection.execute("SELECT count(*) FROM users").fetchone() == (1,)
        return
    with empty_database(database_url, trial.folder) as url:
        done = await asyncio.to_thread(loaded_by_hand, trial.file, url)
        assert (done.returncode, done.stderr) == (0, b"")
        with connected(url) as connection:
            assert rows(connection)["users"]


def loaded_by_hand(file: Path, url: str) -> subprocess.CompletedProcess[bytes]:
    """A backup put into an empty database without Cimiento."""
    given = make_url(url)
    where = [f"--host={given.host}", f"--port={given.port}"]
    if given.get_backend_name() == "mysql":
        password = [f"--password={given.password}"] if given.password else []
        login = [f"--user={given.username}", *password, str(given.database)]
        command = ["mariadb", *where, *login]
    else:
        login = [f"--username={given.username}", f"--dbname={given.database}"]
        command = ["pg_restore", *where, *login]
    with file.open("rb") as opened:
        return subprocess.run(command, stdin=opened, capture_output=True, check=False)


# --- What is not ours --------------------------------------------------------------------------


async def test_the_backup_of_another_kind_is_refused(trial: Trial) -> None:
    kinds = {"mysql": b"SQLite format 3\0", "postgresql": b"-- MariaDB dump\n", "sqlite": b"PGDMP"}
    trial.file.write_bytes(kinds[make_url(trial.target).get_backend_name()] * 200)
    await trial.refused("is no backup of ")


@on_sqlite
@pytest.mark.parametrize(
    ("statements", "reason"),
    [
        (["DROP TABLE alembic_version"], "it names no revision"),
        (["DELETE FROM alembic_version"], "it names no revision"),
        (["INSERT INTO alembic_version VALUES ('0002')"], "it names no revision"),
        (["UPDATE alembic_version SET version_num = 'ae1027a6acf'"], "it names no revision"),
        (["UPDATE alembic_version SET version_num = ''"], "it names no revision"),
        (["UPDATE alembic_version SET version_num = '0000'"], "there never was a revision 0000"),
        (["ALTER TABLE sessions RENAME TO sessions2"], "it has no table sessions"),
        (
            [
                "ALTER TABLE posts RENAME TO posts2",
                "UPDATE alembic_version SET version_num = '0001'",
            ],
            "it has no table posts",
        ),
        (
            ["CREATE TRIGGER evil AFTER UPDATE ON users BEGIN DELETE FROM posts; END"],
            "it has a trigger evil",
        ),
        (["CREATE VIEW evil AS SELECT * FROM users"], "it has a view evil"),
        (["CREATE VIRTUAL TABLE evil USING fts5(x)"], "it has a table evil"),
        (["PRAGMA foreign_keys=OFF", "UPDATE posts SET author_id = 4711"], "is damaged"),
    ],
)
async def test_a_file_of_sqlite_that_is_not_ours_is_refused(
    trial: Trial, statements: list[str], reason: str
) -> None:
    unseal(trial.file)
    with closing(sqlite3.connect(trial.file, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)
    await trial.refused(reason)


@on_sqlite
async def test_any_other_database_is_refused(trial: Trial) -> None:
    trial.file.unlink()
    with closing(sqlite3.connect(trial.file)) as connection, connection:
        connection.execute("CREATE TABLE bookmarks (url TEXT)")
    await trial.refused("it names no revision")


@on_sqlite
async def test_tables_of_our_names_with_other_columns_are_refused(trial: Trial) -> None:
    trial.file.unlink()
    for column, reason in (("v", "it names no revision"), ("version_num", "it has no column ")):
        with closing(sqlite3.connect(trial.file)) as connection, connection:
            for table in columns_at("head"):
                connection.execute(f"DROP TABLE IF EXISTS {table}")
                connection.execute(f"CREATE TABLE {table} ({column})")
            connection.execute("INSERT INTO alembic_version VALUES (?)", [max(revisions())])
        await trial.refused(reason)


@pytest.mark.parametrize(
    ("table", "column"), [("users", "email_key"), ("posts", "published_order"), ("tags", "name")]
)
async def test_a_column_that_is_missing_is_named(
    trial: Trial, database_url: str, table: str, column: str
) -> None:
    with empty_database(database_url, trial.folder) as url:
        await asyncio.to_thread(migrate, url, trial.folder)
        with connected(url) as connection:
            quote = connection.dialect.identifier_preparer.quote
            connection.exec_driver_sql(
                f"ALTER TABLE {quote(table)} RENAME COLUMN {quote(column)} TO other"
            )
        trial.file.unlink()
        trial.file.touch()
        await asyncio.to_thread(store_of(make_url(url)).dump, trial.file)
    await trial.refused(f"it has no column {table}.{column}")


async def test_a_backup_of_each_earlier_revision_is_taken(trial: Trial, database_url: str) -> None:
    """It need not have what came later."""
    for revision in sorted(revisions()):
        with empty_database(database_url, trial.folder) as url:
            await asyncio.to_thread(migrate, url, trial.folder, revision)
            trial.file.unlink()
            trial.file.touch()
            await asyncio.to_thread(store_of(make_url(url)).dump, trial.file)
        done = await invoke("restore", str(trial.file), "--force")
        assert done.exit_code == 0, done.exception
        assert f"revision {revision}" in done.stdout


@on_sqlite
async def test_pages_of_an_older_file_that_broke_are_told(trial: Trial) -> None:
    unseal(trial.file)
    whole = bytearray(trial.file.read_bytes())
    whole[4_096 * 2 : 4_096 * 6] = b"\xff" * (4_096 * 4)
    trial.file.write_bytes(whole)
    await trial.refused("is damaged")


@on_postgresql
async def test_the_dump_of_another_application_is_refused(trial: Trial, database_url: str) -> None:
    for statements, reason in (
        (["CREATE TABLE bookmarks (url text)"], "it names no revision"),
        (
            [
                "CREATE TABLE alembic_version (version_num text)",
                "INSERT INTO alembic_version VALUES ('0003')",
            ],
            "it has no table audit_events",
        ),
    ):
        with empty_database(database_url, trial.folder) as url:
            with connected(url) as connection:
                for statement in statements:
                    connection.exec_driver_sql(statement)
            await asyncio.to_thread(store_of(make_url(url)).dump, trial.file)
        await trial.refused(reason)


@on_mariadb
async def test_so_is_that_of_mariadb(trial: Trial, database_url: str) -> None:
    with empty_database(database_url, trial.folder) as url:
        with connected(url) as connection:
            connection.exec_driver_sql("CREATE TABLE bookmarks (url text)")
        await asyncio.to_thread(store_of(make_url(url)).dump, trial.file)
    await trial.refused("it names no revision")


@pytest.mark.parametrize("revision", [None, "", "3", "00003", "०००३", "0003\n", "head"])
def test_what_is_no_revision_is_none(revision: str | None, tmp_path: Path) -> None:
    with pytest.raises(BackupError, match="it names no revision"):
        refuse_foreign(tmp_path, Contents(columns_at("head"), revision))
    refuse_foreign(tmp_path, Contents(columns_at("head"), max(revisions())))
