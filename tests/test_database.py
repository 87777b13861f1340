"""The engine of each dialect, and what the errors of the drivers mean."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import psycopg
import pymysql
import pytest
from sqlalchemy.exc import DBAPIError, IntegrityError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm.exc import StaleDataError

from app import database
from app.core.exceptions import Conflict, Unavailable
from tests.conftest import make_settings


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
    made = database.connect(make_settings(url, tmp_path))
    assert made.engine.dialect.driver == driver
    assert made.dialect in {"mysql", "postgresql", "sqlite"}


def sqlite_error(kind: type[sqlite3.Error], text: str, name: str = "") -> sqlite3.Error:
    error = kind(text)
    error.sqlite_errorname = name
    return error


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
    wrapped(psycopg.errors.UndefinedTable("relation does not exist")),
    wrapped(sqlite_error(sqlite3.OperationalError, "no such table: users", "SQLITE_ERROR")),
    wrapped(pymysql.err.IntegrityError(1048, "Column cannot be null"), IntegrityError),
    wrapped(psycopg.errors.NotNullViolation("null value in column"), IntegrityError),
    wrapped(sqlite3.IntegrityError("NOT NULL constraint failed: users.name"), IntegrityError),
]


@pytest.mark.parametrize("error", TRANSIENT, ids=str)
def test_what_may_succeed_at_once_is_tried_again_and_else_an_outage(error: Exception) -> None:
    """A11"""
    assert database.is_transient(error)
    assert isinstance(database.refusal_of(error), Unavailable)


@pytest.mark.parametrize("error", OUTAGES, ids=repr)
def test_a_database_that_is_away_is_an_outage(error: Exception) -> None:
    """A9"""
    assert not database.is_transient(error)
    assert isinstance(database.refusal_of(error), Unavailable)


@pytest.mark.parametrize("error", LOST_RACES, ids=str)
def test_a_key_that_somebody_else_took_is_a_conflict(error: Exception) -> None:
    assert not database.is_transient(error)
    assert isinstance(database.refusal_of(error), Conflict)


@pytest.mark.parametrize("error", DEFECTS, ids=str)
def test_a_defect_of_ours_is_neither(error: Exception) -> None:
    """It must reach the log with its trace."""
    assert not database.is_transient(error)
    assert database.refusal_of(error) is None
