"""The engine of each dialect, and the classification of driver errors."""

from __future__ import annotations

import sqlite3
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import psycopg
import pymysql
import pytest
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.exc import (
    DBAPIError,
    IntegrityError,
    InterfaceError,
    OperationalError,
    PendingRollbackError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm.exc import StaleDataError

from app.core.exceptions import Conflict, Unavailable
from app.db import engine, errors
from app.db.failures import described, is_of_database
from app.models.base import UtcDateTime
from tests.conftest import make_settings
from tests.support.faults import sqlite_error


@pytest.mark.parametrize(
    ("url", "driver"),
    [
        ("mysql://app@db.example.com/app", "aiomysql"),
        ("mariadb://app@db.example.com/app", "aiomysql"),
        ("postgres://app@db.example.com/app", "psycopg"),
        ("sqlite:///app.db", "aiosqlite"),
    ],
)
def test_an_engine_connects_to_nothing_by_itself(tmp_path: Path, url: str, driver: str) -> None:
    database = engine.connect(make_settings(url, tmp_path))
    assert database.engine.dialect.driver == driver
    assert database.dialect in {"mysql", "postgresql", "sqlite"}


def wrapped(error: Exception, kind: type[DBAPIError] = OperationalError) -> DBAPIError:
    return kind("SELECT 1", None, error)


DEADLOCK = pymysql.err.OperationalError(1213, "Deadlock found")
TRANSIENT = [
    StaleDataError("changed meanwhile"),
    wrapped(DEADLOCK),
    wrapped(pymysql.err.OperationalError(1205, "Lock wait timeout exceeded")),
    wrapped(psycopg.errors.SerializationFailure("could not serialize")),
    wrapped(psycopg.errors.DeadlockDetected("deadlock detected")),
    wrapped(sqlite_error(sqlite3.OperationalError, "database is locked", "SQLITE_BUSY")),
]
OUTAGES = [
    PoolTimeout("no connection left"),
    ConnectionRefusedError(),
    TimeoutError(),
    wrapped(pymysql.err.OperationalError(2003, "Can't connect")),
    wrapped(pymysql.err.OperationalError(1040, "Too many connections")),
    wrapped(pymysql.err.OperationalError(1047, "WSREP has not yet prepared node")),
    wrapped(pymysql.err.OperationalError(1180, "Got error 6 during COMMIT")),
    wrapped(psycopg.OperationalError("connection refused")),
    wrapped(psycopg.errors.AdminShutdown("terminating connection")),
    wrapped(InterfaceError("gone", None, Exception("gone")), InterfaceError),
    wrapped(sqlite_error(sqlite3.OperationalError, "disk I/O error", "SQLITE_IOERR")),
]
LOST_RACES = [
    wrapped(pymysql.err.IntegrityError(1062, "Duplicate entry"), IntegrityError),
    wrapped(pymysql.err.IntegrityError(1452, "a foreign key constraint fails"), IntegrityError),
    wrapped(psycopg.errors.UniqueViolation("duplicate key"), IntegrityError),
    wrapped(psycopg.errors.ForeignKeyViolation("is not present"), IntegrityError),
    wrapped(sqlite3.IntegrityError("UNIQUE constraint failed: tags.name"), IntegrityError),
    wrapped(sqlite3.IntegrityError("FOREIGN KEY constraint failed"), IntegrityError),
]
DEFECTS = [
    ValueError("no database at all"),
    FileNotFoundError("a file of ours"),
    wrapped(pymysql.err.ProgrammingError(1146, "Table doesn't exist")),
    wrapped(pymysql.err.OperationalError(1305, "FUNCTION concat_all does not exist")),
    KeyError(1213),
    wrapped(psycopg.errors.UndefinedTable("relation does not exist")),
    wrapped(sqlite_error(sqlite3.OperationalError, "no such table: users", "SQLITE_ERROR")),
    wrapped(pymysql.err.IntegrityError(1048, "Column cannot be null"), IntegrityError),
    wrapped(psycopg.errors.NotNullViolation("null value in column"), IntegrityError),
    wrapped(sqlite3.IntegrityError("NOT NULL constraint failed: users.name"), IntegrityError),
]


@pytest.mark.parametrize("error", TRANSIENT, ids=str)
def test_what_may_succeed_at_once_is_tried_again_and_else_an_outage(error: Exception) -> None:
    """A11"""
    assert errors.is_transient(error)
    assert isinstance(errors.refusal_of(error), Unavailable)


def behind(error: Exception, *causes: Exception, by: str = "__context__") -> Exception:
    """An error that hides others, the nearest first."""
    outer = error
    for cause in causes:
        setattr(outer, by, cause)
        outer = cause
    return error


GONE = wrapped(pymysql.err.OperationalError(1305, "SAVEPOINT sa_savepoint_1 does not exist"))
FAILED = wrapped(psycopg.errors.InFailedSqlTransaction("commands ignored until end"))
HIDDEN = [
    behind(
        wrapped(pymysql.err.OperationalError(1305, "SAVEPOINT x does not exist")),
        wrapped(DEADLOCK),
    ),
    behind(ValueError("while cleaning up"), KeyError("again"), wrapped(DEADLOCK)),
    behind(RuntimeError("raised from it"), wrapped(DEADLOCK), by="__cause__"),
    behind(
        wrapped(psycopg.errors.InFailedSqlTransaction("ignored")),
        wrapped(psycopg.errors.SerializationFailure("could not serialize")),
    ),
    behind(PendingRollbackError("rolled back by a flush"), wrapped(DEADLOCK)),
    behind(IntegrityError("INSERT", None, Exception("taken")), wrapped(DEADLOCK)),
    ExceptionGroup("tasks", [ValueError("the other one"), wrapped(DEADLOCK)]),
    ExceptionGroup("tasks", [ExceptionGroup("inner", [behind(ValueError(), DEADLOCK)])]),
    DEADLOCK,
    psycopg.errors.DeadlockDetected("not wrapped"),
    sqlite3.OperationalError("database table is locked: tags"),
]


@pytest.mark.parametrize("error", HIDDEN, ids=repr)
def test_what_may_succeed_at_once_is_known_wherever_it_surfaces(error: Exception) -> None:
    assert errors.is_transient(error)
    assert isinstance(errors.refusal_of(error), Unavailable)


@pytest.mark.parametrize(
    "error",
    [
        GONE,
        FAILED,
        wrapped(psycopg.errors.InvalidSavepointSpecification("does not exist")),
        wrapped(sqlite3.OperationalError("no such savepoint: unit")),
        wrapped(sqlite3.OperationalError("cannot commit - no transaction is active")),
        PendingRollbackError("rolled back by a flush"),
    ],
    ids=repr,
)
def test_a_transaction_that_was_gone_already_is_run_again(error: Exception) -> None:
    assert errors.is_transient(error)


def test_a_chain_that_bites_its_tail_has_an_end() -> None:
    error = behind(ValueError("a"), KeyError("b"))
    assert error.__context__ is not None
    error.__context__.__cause__ = error
    assert not errors.is_transient(error)
    assert errors.refusal_of(ExceptionGroup("more", [error])) is None


def test_an_outage_hidden_by_a_clean_up_that_failed_is_an_outage() -> None:
    away = wrapped(pymysql.err.OperationalError(2013, "Lost connection"))
    assert isinstance(errors.refusal_of(behind(RuntimeError("closed"), away)), Unavailable)
    assert isinstance(errors.refusal_of(ExceptionGroup("", [TimeoutError()])), Unavailable)
    assert errors.refusal_of(behind(RuntimeError("ours"), TimeoutError())) is None


@pytest.mark.parametrize("error", OUTAGES, ids=repr)
def test_a_database_that_is_away_is_an_outage(error: Exception) -> None:
    """A9"""
    assert not errors.is_transient(error)
    assert isinstance(errors.refusal_of(error), Unavailable)


@pytest.mark.parametrize("error", LOST_RACES, ids=str)
def test_a_key_that_another_transaction_took_is_a_conflict(error: Exception) -> None:
    assert not errors.is_transient(error)
    assert isinstance(errors.refusal_of(error), Conflict)


@pytest.mark.parametrize("error", DEFECTS, ids=str)
def test_a_defect_of_ours_is_neither(error: Exception) -> None:
    """It must reach the log with its trace."""
    assert not errors.is_transient(error)
    assert errors.refusal_of(error) is None


@pytest.mark.parametrize(
    ("error", "known"),
    [
        (HIDDEN[0], {"error": "OperationalError", "errno": 1213}),
        (HIDDEN[3], {"error": "SerializationFailure", "sqlstate": "40001"}),
        (
            wrapped(sqlite_error(sqlite3.OperationalError, "locked", "SQLITE_BUSY")),
            {"error": "OperationalError", "sqlite": "SQLITE_BUSY"},
        ),
        (sqlite3.InterfaceError("no name"), {"error": "InterfaceError"}),
    ],
)
def test_what_is_logged_is_the_first_error_of_the_chain(
    error: Exception, known: dict[str, object]
) -> None:
    assert described(error) == known | {"where": ""}
    assert described(ValueError("none")) == {"error": "ValueError"}
    assert is_of_database(error)
    assert not is_of_database(ValueError("none"))


@pytest.mark.parametrize("kind", [mysql, postgresql, sqlite])
def test_moments_are_written_in_utc(kind: Any) -> None:
    dialect: Any = kind.dialect()
    convert: Any = UtcDateTime().dialect_impl(dialect).bind_processor(dialect) or (
        lambda value: value
    )
    east = datetime(2026, 1, 1, 1, 30, tzinfo=timezone(timedelta(hours=2)))
    written = {
        "mysql": datetime.fromisoformat("2025-12-31 23:30:00"),
        "postgresql": east,
        "sqlite": "2025-12-31 23:30:00.000000",
    }
    assert convert(east) == written[dialect.name]
    assert convert(None) is None
    with pytest.raises(ValueError, match="time zone"):
        convert(datetime.fromisoformat("2026-01-01"))
