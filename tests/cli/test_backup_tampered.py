"""Backups that were tampered with are refused, and nothing in them is run."""

from __future__ import annotations

import asyncio
import re
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import inspect, text
from sqlalchemy.engine import make_url

from app.cli.backup import BackupError, store_of
from app.cli.backup.contents import Contents
from app.cli.backup.dumps import read_dump
from tests.support.backup_trials import Trial
from tests.support.backups import unseal
from tests.support.commands import invoke
from tests.support.schema import connected, empty_database, tables

on_mariadb = pytest.mark.parametrize("database_url", ["mariadb"], indirect=True)
on_postgresql = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


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
    """Neither by the shell nor by the database; a recomputed checksum makes no difference."""
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
