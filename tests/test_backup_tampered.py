"""Backups that were damaged, or tampered with, or never were ours: refused before anything goes."""

from __future__ import annotations

import asyncio
import re
import sqlite3
import subprocess
from collections.abc import AsyncIterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import inspect, text
from sqlalchemy.engine import make_url

from app.backups import BackupError, store_of
from app.backups.contents import Contents, refuse_foreign
from app.backups.dumps import read_dump
from app.migrations import columns_at, revisions
from tests.conftest import migrate
from tests.support.backups import unseal
from tests.support.client import Client
from tests.support.commands import SetEnv, invoke
from tests.support.people import newcomer
from tests.support.schema import connected, empty_database, rows, tables

on_mariadb = pytest.mark.parametrize("database_url", ["mariadb"], indirect=True)
on_postgresql = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@pytest.fixture
async def author(client: Client) -> None:
    person = await newcomer(client)
    await person.post(
        "/posts", {"title": "Ñandú 😀", "content": "a'b\\c\"\r\n\t%; -- #", "tags": ["x"]}
    )


@dataclass
class Trial:
    """A backup, and a database with people in it that it would replace."""

    file: Path
    target: str
    folder: Path

    @property
    def canary(self) -> Path:
        """What a command that runs would leave."""
        return self.folder / "canary"

    def content(self) -> dict[str, Any]:
        """All of the target."""
        with connected(self.target) as connection:
            found: dict[str, Any] = rows(connection)
            return found | {"tables": inspect(connection).get_table_names()}

    async def refused(self, reason: str = "") -> None:
        """One line refuses the file: even by force nothing is dropped, or run."""
        before = self.content()
        await self.refusing_line(reason)
        assert self.content() == before

    async def refusing_line(self, reason: str = "") -> str:
        """The line that refuses the file."""
        done = await invoke("restore", str(self.file), "--force")
        line = str(done.exception)
        assert isinstance(done.exception, SystemExit), repr(done.exception)
        assert done.exit_code == 1
        assert line.startswith("cimiento: ")
        assert "\n" not in line
        assert reason in line
        assert not self.canary.exists()
        return line


@pytest.fixture
async def trial(
    author: None,  # noqa: ARG001 whose post is in the backup
    database_url: str,
    tmp_path: Path,
    set_env: SetEnv,
) -> AsyncIterator[Trial]:
    set_env(database_url=database_url)
    file = tmp_path / "one.backup"
    done = await invoke("backup", str(file))
    assert done.exit_code == 0, done.output
    with empty_database(database_url, tmp_path) as target:
        await asyncio.to_thread(migrate, target, tmp_path)
        set_env(database_url=target)
        yield Trial(file, target, tmp_path)


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


# --- Tampered with: MariaDB --------------------------------------------------------------------

SHELL = "\\! touch {canary}"
# Each is put before the line that begins with the second.
TAMPERED = [
    (SHELL, "UNLOCK TABLES"),
    (SHELL, "/*M!999999"),
    (SHELL, "-- Dump completed"),
    (f"SELECT 1 {SHELL}", "UNLOCK TABLES"),
    (f"SELECT 1;{SHELL}", "UNLOCK TABLES"),
    (f"/*!40101 SET NAMES utf8mb4 */;{SHELL}", "UNLOCK TABLES"),
    (f"/*!40101 SET NAMES utf8mb4 */; {SHELL}", "CREATE TABLE"),
    (f"-- comment\r{SHELL}", "UNLOCK TABLES"),
    (f"-- {SHELL}", "UNLOCK TABLES"),
    (f"/* {SHELL} */", "UNLOCK TABLES"),
    (f"/*!99999 {SHELL} */;", "UNLOCK TABLES"),
    (f"/*!40101 SET SQL_MODE='NO_BACKSLASH_ESCAPES' */;\n'\\'\n{SHELL}\n", "UNLOCK TABLES"),
    ("/*!40101 SET SQL_MODE=1048576 */;", "UNLOCK TABLES"),
    ("/*!40101 SET SQL_MODE='ANSI_QUOTES' */;", "UNLOCK TABLES"),
    ("/*!40101 SET @x='NO_BACKSLASH_ESCAPES' */;", "UNLOCK TABLES"),
    (f"'\n{SHELL}\n';", "UNLOCK TABLES"),
    (f"`\n{SHELL}\n`;", "UNLOCK TABLES"),
    (f'"\n{SHELL}\n";', "UNLOCK TABLES"),
    (f"  `x` int, {SHELL}", "  PRIMARY KEY"),
    (f"  `x` int); {SHELL}", "  PRIMARY KEY"),
    ("system touch {canary}", "UNLOCK TABLES"),
    ("SYSTEM touch {canary}", "-- Dump completed"),
    ("source {canary}.sql", "UNLOCK TABLES"),
    ("\\. {canary}.sql", "UNLOCK TABLES"),
    ("tee {canary}", "UNLOCK TABLES"),
    ("\\T {canary}", "UNLOCK TABLES"),
    ("pager touch {canary}", "UNLOCK TABLES"),
    ("\\P touch {canary}", "UNLOCK TABLES"),
    ("edit", "UNLOCK TABLES"),
    ("delimiter !", "UNLOCK TABLES"),
    (f"DELIMITER ;;\n{SHELL}\n;;", "UNLOCK TABLES"),
    ("use mysql;", "UNLOCK TABLES"),
    ("connect mysql", "UNLOCK TABLES"),
    ("LOAD DATA LOCAL INFILE '/etc/passwd' INTO TABLE `tags`;", "UNLOCK TABLES"),
    ("SELECT 1 INTO OUTFILE '{canary}';", "UNLOCK TABLES"),
    ("SELECT 1;", "UNLOCK TABLES"),
    ("INSERT INTO `tags` SELECT * FROM `users`;", "UNLOCK TABLES"),
    ("INSERT INTO `tags` VALUES (1,LOAD_FILE('/etc/passwd'));SELECT 1;", "UNLOCK TABLES"),
    ("CREATE TABLE `x` AS SELECT 1;", "UNLOCK TABLES"),
    ("CREATE TABLE `x` (\n `a` int\n) AS SELECT 1;", "UNLOCK TABLES"),
    ("CREATE FUNCTION x RETURNS STRING SONAME 'x.so';", "UNLOCK TABLES"),
    ("CREATE TRIGGER x BEFORE INSERT ON users FOR EACH ROW SET @x=1;", "UNLOCK TABLES"),
    ("/*!50106 CREATE EVENT x ON SCHEDULE EVERY 1 DAY DO DELETE FROM users */;", "UNLOCK TABLES"),
    ("GRANT ALL ON *.* TO evil@localhost;", "UNLOCK TABLES"),
    ("SET GLOBAL general_log_file='{canary}';", "UNLOCK TABLES"),
    ("/*!40101 SET @@GLOBAL.general_log=1 */;", "UNLOCK TABLES"),
    ("DROP DATABASE mysql;", "UNLOCK TABLES"),
    ("DROP TABLE IF EXISTS `users`;", "UNLOCK TABLES"),
    ("CREATE TABLE `x` (", "-- Dump completed"),
    ("INSERT INTO `x` VALUES", "-- Dump completed"),
    # In another character set a backslash may be the half of a character: 28 is one of GBK's, and
    # 1 of Big5's.
    *(
        (f"{statement};", "UNLOCK TABLES")
        for statement in [
            "/*!40101 SET character_set_client = 'gbk' */",
            "SET character_set_client = gbk",
            "SET character_set_client = 28",
            "SET collation_connection='gbk_chinese_ci'",
            "SET NAMES gbk",
            "SET @x=@@unique_checks; SET character_set_client=@x",
            "SET @x=@@unique_checks;\nSET character_set_client=@x",
            "SET @x=@@unique_checks, character_set_client=@x",
            "SET character_set_client=@x, @x=@@unique_checks",
            "SET @old_time_zone=@@unique_checks",
            "SET sql_mode=@OLD_TIME_ZONE",
            "SET time_zone=utf8",
            "SET NAMES utf8mb4 COLLATE gbk_chinese_ci",
        ]
    ),
    # Rows are literals.
    *(
        (f"INSERT INTO `tags` VALUES (4711,{value});", "UNLOCK TABLES")
        for value in [
            "CONCAT(USER(),(SELECT COUNT(`Host`) FROM mysql.global_priv))",
            "LOAD_FILE('/etc/passwd')",
            *("(SELECT 1)", "`id`", "USER()", "CURRENT_USER", "@@version", "DEFAULT", "1+1", "- 1"),
            *("0x", "0xG", "1e", "x", "_gbk'x'", "'a' 'b'", "'a'+1", "(1)", "SLEEP(1)", "NULLx"),
        ]
    ),
    ("INSERT INTO `tags` VALUES\n(4711,USER());", "UNLOCK TABLES"),
    ("INSERT INTO `tags` VALUES\n(4711,'a'),\n(4712,USER());", "UNLOCK TABLES"),
    ("INSERT INTO `tags` VALUES (4711,'a'),(4712,USER());", "UNLOCK TABLES"),
    ("INSERT INTO `tags` (`id`, name) VALUES (4711,'a');", "UNLOCK TABLES"),
    # Tables that are kept elsewhere.
    *(
        (f"CREATE TABLE `x` (\n  `a` int{more};", "UNLOCK TABLES")
        for more in [
            "\n) ENGINE=FEDERATED CONNECTION='mysql://h/d/t'",
            "\n) ENGINE = CONNECT",
            "\n) ENGINE CSV",
            "\n) ENGINE=InnoDB DATA DIRECTORY='/tmp'",
            "\n) ENGINE\n=CSV",
            " DEFAULT load_file('/etc/passwd')\n) ENGINE=InnoDB",
        ]
    ),
]


@on_mariadb
async def test_no_line_of_a_tampered_dump_is_run(trial: Trial) -> None:
    """Neither for the shell nor for the database; a checksum somebody made anew helps nothing."""
    unseal(trial.file)
    whole, before = trial.file.read_text(), trial.content()
    for line, next_one in TAMPERED:
        evil = line.replace("{canary}", str(trial.canary))
        at = re.search(f"^{re.escape(next_one)}", whole, re.MULTILINE)
        assert at, next_one
        trial.file.write_text(f"{whole[: at.start()]}{evil}\n{whole[at.start() :]}")
        await trial.refusing_line(f"{trial.file} is ")
    assert trial.content() == before


@on_mariadb
@pytest.mark.parametrize("text_", [b"\xbf\\'", b"caf\xe9", b"\xed\xa0\x80", b"\xc0\xa7"])
async def test_a_dump_in_another_encoding_is_refused(trial: Trial, text_: bytes) -> None:
    """Nothing of it would end elsewhere for the server than it does for us."""
    unseal(trial.file)
    row = b"INSERT INTO `tags` (`name`) VALUES ('" + text_ + b"');\nUNLOCK TABLES"
    trial.file.write_bytes(trial.file.read_bytes().replace(b"UNLOCK TABLES", row, 1))
    await trial.refused("is none of a backup's")


@on_mariadb
async def test_nor_by_the_client_itself(trial: Trial) -> None:
    """What would pass our reading meets a client that has no such commands."""
    for line in (
        SHELL,
        f"SELECT 1 {SHELL}",
        "system touch {canary}",
        "\\. {canary}",
        "tee {canary}",
    ):
        trial.file.write_text(line.replace("{canary}", str(trial.canary)) + "\n")
        with pytest.raises(BackupError):
            store_of(make_url(trial.target)).load(trial.file)
        assert not trial.canary.exists()


@on_mariadb
async def test_triggers_and_views_of_others_are_not_in_a_backup(trial: Trial) -> None:
    file = trial.folder / "two.backup"
    with connected(trial.target) as connection:
        connection.exec_driver_sql("CREATE VIEW seen AS SELECT id FROM users")
        connection.exec_driver_sql(
            "CREATE TRIGGER noted BEFORE INSERT ON tags FOR EACH ROW SET @noted = 1"
        )
    assert (await invoke("backup", str(file))).exit_code == 0
    assert b"seen" not in file.read_bytes()
    assert b"noted" not in file.read_bytes()
    assert (await invoke("restore", str(file), "--force")).exit_code == 0


MYSQL_8 = r"""-- MySQL dump 10.13  Distrib 8.0.39, for Linux (x86_64)
--
-- Host: localhost    Database: cimiento
-- ------------------------------------------------------
-- Server version	8.0.39

/*!40101 SET @OLD_CHARACTER_SET_CLIENT=@@CHARACTER_SET_CLIENT */;
/*!50503 SET NAMES utf8mb4 */;
/*!40103 SET @OLD_TIME_ZONE=@@TIME_ZONE */;
/*!40103 SET TIME_ZONE='+00:00' */;
/*!40014 SET @OLD_UNIQUE_CHECKS=@@UNIQUE_CHECKS, UNIQUE_CHECKS=0 */;
/*!40101 SET @OLD_SQL_MODE=@@SQL_MODE, SQL_MODE='NO_AUTO_VALUE_ON_ZERO' */;
SET @MYSQLDUMP_TEMP_LOG_BIN = @@SESSION.SQL_LOG_BIN;
SET @@SESSION.SQL_LOG_BIN= 0;
SET @@GLOBAL.GTID_PURGED=/*!80000 '+'*/ '3E11FA47-71CA-11E1-9E33-C80AA9429562:1-5';

/*!40101 SET @saved_cs_client     = @@character_set_client */;
/*!50503 SET character_set_client = utf8mb4 */;
CREATE TABLE `alembic_version` (
  `version_num` varchar(32) COLLATE utf8mb4_unicode_ci NOT NULL /*!80023 INVISIBLE */,
  `odd;name` varchar(5) DEFAULT 'a;\'b' COMMENT 'it''s /* \\! */ #',
  `live` varchar(9) GENERATED ALWAYS AS ((case when (`x` is null) then `y` end)) STORED,
  CONSTRAINT `c` CHECK ((`x` <> _utf8mb4'\'') and (`y` >= 0))
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci
/*!50100 PARTITION BY HASH (`id`)
PARTITIONS 4 */;
/*!40101 SET character_set_client = @saved_cs_client */;

LOCK TABLES `alembic_version` WRITE;
/*!40000 ALTER TABLE `alembic_version` DISABLE KEYS */;
INSERT INTO `alembic_version` (`version_num`, `n`) VALUES ('0003');
/*!40000 ALTER TABLE `alembic_version` ENABLE KEYS */;
UNLOCK TABLES;
set autocommit=0;
INSERT INTO `other` VALUES (1,-2.5e-10,NULL,0x41BC,_binary 'a\0\\\'',b'1','--; \\! (');
INSERT INTO `other` VALUES
(1,'a
','x'),
(2,'','');
commit;
SET @@SESSION.SQL_LOG_BIN = @MYSQLDUMP_TEMP_LOG_BIN;
/*M!100616 SET NOTE_VERBOSITY=@OLD_NOTE_VERBOSITY */;
-- Dump completed on 2026-11-27 16:08:01
"""


def test_what_other_versions_of_the_tools_write_is_taken(tmp_path: Path) -> None:
    (tmp_path / "dump").write_text(MYSQL_8.replace("a\n'", "a\\n'"))
    assert read_dump(tmp_path / "dump") == Contents(
        {"alembic_version": {"version_num", "odd;name", "live"}}, "0003"
    )
    (tmp_path / "dump").write_text(MYSQL_8)
    with pytest.raises(BackupError, match="tampered with: line 37 "):
        read_dump(tmp_path / "dump")
    (tmp_path / "dump").write_text("CREATE TABLE `x` (\n  `a` int\n) ENGINE=MyISAM;\n")
    assert read_dump(tmp_path / "dump").tables == {"x": {"a"}}
    (tmp_path / "dump").write_bytes(MYSQL_8.replace("a\n'", "é'").encode("latin-1"))
    with pytest.raises(BackupError, match="tampered with: line 37 "):
        read_dump(tmp_path / "dump")
    (tmp_path / "dump").write_text("CREATE TABLE `x` (\n")
    with pytest.raises(BackupError, match="is cut off"):
        read_dump(tmp_path / "dump")
    (tmp_path / "dump").write_text("INSERT INTO `alembic_version` VALUES ('0002'),('0003');\n")
    assert read_dump(tmp_path / "dump").revision is None


# --- Tampered with: PostgreSQL -----------------------------------------------------------------


@on_postgresql
@pytest.mark.parametrize(
    "evil",
    [
        "\\! touch {canary}",
        "\\o |touch {canary}",
        "\\copy users to program 'touch {canary}'",
        "\\i {canary}",
        "SELECT 'touch {canary}' \\g |sh",
        "\\set x `touch {canary}`",
    ],
)
async def test_no_line_of_a_tampered_archive_is_a_command(
    trial: Trial, evil: str, database_url: str
) -> None:
    """An archive's statements are texts of any kind: here one that psql would take for its own."""
    mark = "M" * (len(evil) + 200)
    with connected(database_url) as connection:
        connection.exec_driver_sql(f"ALTER TABLE tags ADD note text DEFAULT '{mark}'")
    try:
        await asyncio.to_thread(store_of(make_url(database_url)).dump, trial.file)
    finally:
        with connected(database_url) as connection:
            connection.exec_driver_sql("ALTER TABLE tags DROP note")
    line = f"';\n{evil.replace('{canary}', str(trial.canary))}\n--"
    content = trial.file.read_bytes()
    assert mark.encode() in content
    trial.file.write_bytes(content.replace(mark.encode(), line.encode().ljust(len(mark), b"-")))
    await trial.refused("is none of a backup's statements")


def definition(content: bytes, start: bytes) -> bytes:
    """The text of a statement in an archive."""
    at = content.index(start)
    return content[at : content.index(b";\n", at) + 2]


@on_postgresql
@pytest.mark.parametrize(
    ("start", "evil"),
    [
        (b"CREATE TABLE public.outbox", b"COPY (SELECT 1) TO PROGRAM 'touch {canary}';{}"),
        (b"CREATE TABLE public.outbox", b"{}COPY (SELECT 1) TO PROGRAM 'touch {canary}';"),
        (b"CREATE TABLE public.outbox", b"{}COPY outbox FROM PROGRAM 'touch {canary}';"),
        (b"CREATE TABLE public.outbox", b"CREATE TABLE x (a oid DEFAULT lo_import('{canary}'));{}"),
        (b"COPY public.outbox", b"COPY public.outbox FROM PROGRAM 'touch {canary}';"),
        (b"CREATE INDEX ix_posts_by_title", b"DO $$BEGIN END$$;"),
        (b"ALTER TABLE ONLY public.tags\n    ADD", b"ALTER ROLE x SUPERUSER;"),
    ],
)
async def test_no_statement_but_a_backups_is_run(trial: Trial, start: bytes, evil: bytes) -> None:
    """A superuser, as here, might have it run programs."""
    unseal(trial.file)
    content = trial.file.read_bytes()
    before = definition(content, start)
    # There is no more place for it than for the one before.
    short = before.replace(b" NOT NULL", b"").replace(b"character varying", b"varchar")
    short = re.sub(rb"\s+", b" ", short.replace(b"timestamp with time zone", b"timestamptz"))
    after = evil.replace(b"{canary}", str(trial.canary).encode()).replace(b"{}", short)
    assert len(after) <= len(before), (len(after), len(before))
    trial.file.write_bytes(content.replace(before, after.ljust(len(before)), 1))
    await trial.refused("is none of a backup's statements")


@on_postgresql
async def test_functions_and_triggers_of_an_archive_are_left_out(
    trial: Trial, database_url: str
) -> None:
    file = trial.folder / "two.backup"
    with connected(trial.target) as connection:
        for statement in (
            "CREATE FUNCTION evil() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'",
            "CREATE TRIGGER evil BEFORE INSERT ON tags FOR EACH ROW EXECUTE FUNCTION evil()",
            "CREATE VIEW seen AS SELECT id FROM users",
        ):
            connection.exec_driver_sql(statement)
    assert (await invoke("backup", str(file))).exit_code == 0
    with empty_database(database_url, trial.folder) as url, pytest.MonkeyPatch.context() as patch:
        patch.setenv("DATABASE_URL", url)
        done = await invoke("restore", str(file))
        assert done.exit_code == 0, done.exception
        with connected(url) as connection:
            found = connection.execute(text("SELECT proname FROM pg_proc WHERE proname = 'evil'"))
            assert found.all() == []
            assert (
                connection.execute(text("SELECT 1 FROM pg_trigger WHERE NOT tgisinternal")).all()
                == []
            )
            assert inspect(connection).get_view_names() == []
            assert "users" in tables(connection)


# --- Tampered with: SQLite ---------------------------------------------------------------------


@on_sqlite
async def test_triggers_and_views_are_not_in_a_backup_of_sqlite(trial: Trial) -> None:
    file = trial.folder / "two.backup"
    with connected(trial.target) as connection:
        connection.exec_driver_sql('CREATE VIEW "se""en" AS SELECT id FROM users')
        connection.exec_driver_sql(
            "CREATE TRIGGER noted BEFORE INSERT ON tags BEGIN DELETE FROM roles; END"
        )
        connection.exec_driver_sql("CREATE VIRTUAL TABLE words USING fts5(x)")
    assert (await invoke("backup", str(file))).exit_code == 0
    assert (await invoke("restore", str(file), "--force")).exit_code == 0
    with closing(sqlite3.connect(file)) as connection:
        assert not connection.execute(
            "SELECT name FROM sqlite_master WHERE type IN ('view', 'trigger') OR name LIKE 'words%'"
        ).fetchall()
