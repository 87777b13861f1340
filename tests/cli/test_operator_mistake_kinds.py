"""Which errors are reported as operator mistakes, and which keep their traceback."""

from __future__ import annotations

import errno
import re
import sqlite3
from collections.abc import Callable
from pathlib import Path

import psycopg
import pymysql
import pytest
from alembic.util import CommandError
from redis.exceptions import ConnectionError as RedisError
from sqlalchemy.exc import OperationalError
from typer.testing import CliRunner

from app.cli import mistakes
from app.cli.commands import cli
from app.cli.database import PAST_POOLER
from tests.support.commands import SetEnv, invoke


def wrapped(error: Exception) -> OperationalError:
    return OperationalError("SELECT 1", {}, error)


def sqlite_error(text: str, name: str) -> sqlite3.OperationalError:
    error = sqlite3.OperationalError(text)
    error.sqlite_errorname = name
    return error


REFUSED = psycopg.OperationalError('failed: FATAL: password authentication failed for user "ana"')
TOLD = [
    (pymysql.OperationalError(2003, "Can't connect"), "refuses: Can't connect .*: see whether it"),
    (pymysql.OperationalError(1045, "Access denied"), "set the right user and password"),
    (pymysql.OperationalError(1049, "Unknown database 'x'"), "make that database"),
    (
        pymysql.OperationalError(1044, "Access denied to canary"),
        "denied to \\*\\*\\* .*: grant the user",
    ),
    (pymysql.ProgrammingError(1146, "Table 'x.users' doesn't exist"), "run scripts/migrate"),
    (REFUSED, "set the right user and password"),
    (psycopg.OperationalError('FATAL: database "x" does not exist'), "make that database"),
    (psycopg.OperationalError('FATAL: role "ana" does not exist'), "set the right user"),
    (psycopg.errors.ConnectionTimeout("connection timeout expired"), "see whether it runs there"),
    (psycopg.OperationalError("connection refused"), "see whether it runs there"),
    (psycopg.errors.InvalidCatalogName("no x"), "make that database"),
    (psycopg.errors.InsufficientPrivilege("permission denied"), "grant the user"),
    (psycopg.errors.UndefinedTable("no users"), "run scripts/migrate"),
    (psycopg.errors.TooManyConnections("sorry"), "see whether it runs there"),
    (sqlite_error("no such table: users", "SQLITE_ERROR"), "run scripts/migrate"),
    (sqlite_error("disk I/O error", "SQLITE_IOERR"), "disk I/O error"),
    (CommandError("Can't locate revision"), "^not migrated: Can't locate revision$"),
    (RedisError("refused"), "REDIS_URL"),
    (FileNotFoundError(2, "No such file", "x.backup"), "^x.backup: No such file$"),
    (PermissionError(13, "Permission denied", "state/secret.key"), "in DATA_DIR"),
    (
        OSError(errno.ENOSPC, "No space left on device"),
        "No space left on device: DATA_DIR \\(state\\)",
    ),
    (ConnectionResetError(104, "Connection reset"), "does not answer: Connection reset"),
    (TimeoutError(), "does not answer: TimeoutError"),
]
DEFECTS = [
    pymysql.IntegrityError(1062, "Duplicate entry 'canary'"),
    pymysql.ProgrammingError(1064, "syntax"),
    psycopg.errors.UniqueViolation("canary"),
    psycopg.errors.SyntaxError("canary"),
    sqlite_error("near x: syntax error", "SQLITE_ERROR"),
    sqlite_error("UNIQUE constraint failed", "SQLITE_CONSTRAINT_UNIQUE"),
    ValueError("canary"),
    RuntimeError(),
]
URL = "mysql://ana:canary@[::1]:3307/app"


@pytest.fixture
def _settings(set_env: SetEnv) -> None:
    set_env(data_dir="state", database_url=URL)


@pytest.mark.parametrize(("error", "says"), TOLD, ids=lambda each: str(each)[:30])
@pytest.mark.parametrize("wrap", [wrapped, lambda error: error], ids=["wrapped", "bare"])
def test_an_operators_mistake_is_told(
    error: Exception, says: str, wrap: Callable[[Exception], Exception], set_env: SetEnv
) -> None:
    is_sqlite = isinstance(error, sqlite3.Error)
    set_env(data_dir="state", database_url="" if is_sqlite else URL)
    Path("state").mkdir()
    is_of_driver = isinstance(error, sqlite3.Error | pymysql.Error | psycopg.Error)
    line = mistakes._line_of(wrap(error) if is_of_driver else error)
    assert line is not None
    assert re.search(says, line), line
    assert "canary" not in line
    assert "\n" not in line


@pytest.mark.parametrize("error", DEFECTS, ids=lambda each: type(each).__name__)
def test_a_defect_is_not_told(error: Exception, set_env: SetEnv) -> None:
    set_env(data_dir="state", database_url="" if isinstance(error, sqlite3.Error) else URL)
    Path("state").mkdir()
    assert mistakes._line_of(error) is None


@pytest.mark.usefixtures("_settings")
def test_the_place_of_a_database_is_named_without_secrets() -> None:
    line = mistakes._line_of(wrapped(pymysql.OperationalError(2003, "no")))
    assert line is not None
    assert "the database refuses: no (mysql://[::1]:3307/app): " in line


def test_past_a_pooler_the_other_url_is_named(set_env: SetEnv) -> None:
    set_env(database_url=URL, database_direct_url=URL.replace("3307", "3306"))
    error = wrapped(pymysql.OperationalError(1045, "Access denied"))
    error.add_note(PAST_POOLER)
    line = mistakes._line_of(error)
    assert line is not None
    assert "(mysql://[::1]:3306/app): set the right user" in line
    assert line.endswith("in DATABASE_DIRECT_URL")


async def test_what_goes_wrong_past_a_pooler_is_noted(set_env: SetEnv) -> None:
    away = "postgresql://ana@127.0.0.1:1/app"
    set_env(database_url="postgresql://ana@127.0.0.1:2/app", database_direct_url=away)
    failed = await invoke("migrate")
    assert "127.0.0.1:1/app" in str(failed.exception)
    assert "whether DATABASE_DIRECT_URL is right" in str(failed.exception)


# --- The end of a command ----------------------------------------------------------------------


def ended(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> tuple[int, str, object]:
    def fail() -> None:
        raise error

    monkeypatch.setattr("app.cli.commands.load_settings", fail)
    result = CliRunner().invoke(cli, ["beat"])
    said = result.exception.code if isinstance(result.exception, SystemExit) else ""
    line = said if isinstance(said, str) else result.stderr
    return result.exit_code, line, result.exception


@pytest.mark.usefixtures("_settings")
def test_a_mistake_ends_with_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    status, line, _ = ended(monkeypatch, FileNotFoundError(2, "No such\nfile", "x"))
    assert (status, line) == (1, "cimiento: x: No such file")


@pytest.mark.usefixtures("_settings")
def test_a_defect_keeps_its_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    error = ValueError("a defect")
    assert ended(monkeypatch, error) == (1, "", error)


@pytest.mark.parametrize(("level", "is_shown"), [("DEBUG", True), ("debug", True), ("INFO", False)])
def test_debugging_shows_the_trace_of_a_mistake(
    monkeypatch: pytest.MonkeyPatch, set_env: SetEnv, level: str, is_shown: bool
) -> None:
    set_env(log_level=level)
    error = FileNotFoundError(2, "No such file", "x")
    assert (ended(monkeypatch, error)[2] is error) is is_shown


def test_settings_that_cannot_be_read_are_no_debugging(set_env: SetEnv) -> None:
    set_env(log_level="loud")
    assert not mistakes._is_debugging()


def test_a_break_ends_without_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ended(monkeypatch, KeyboardInterrupt())[:2] == (130, "")


def test_help_is_no_mistake() -> None:
    assert CliRunner().invoke(cli, ["--help"]).exit_code == 0
    nothing = CliRunner().invoke(cli, [])
    assert (nothing.exit_code, "create-admin" in nothing.output) == (2, True)


@pytest.mark.usefixtures("_settings")
def test_who_enters_nothing_is_told() -> None:
    result = CliRunner().invoke(cli, ["create-admin"], input="")
    assert result.exit_code == 1
    assert str(result.exception) == "cimiento: ended: nothing was entered"
