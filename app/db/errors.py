"""What an error of the database means: run the transaction again, wait, or answer a conflict.

By the number or SQLSTATE of the driver, wherever in a chain of errors it stands
(`app/db/failures.py`).
"""

from __future__ import annotations

import re
import sqlite3

from sqlalchemy.exc import (
    DBAPIError,
    IntegrityError,
    InterfaceError,
    OperationalError,
    PendingRollbackError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm.exc import StaleDataError

from app.core.exceptions import AppError, Conflict, Unavailable
from app.db.failures import causes, errno_of, original_of, raised, sqlstate_of

# MariaDB/MySQL error numbers and SQLSTATEs after which the same transaction may succeed.
_TRANSIENT_ERRNOS = {1205, 1213, 1020}
_TRANSIENT_SQLSTATES = {"40001", "40P01", "55P03"}
_SQLITE_BUSY = re.compile(r"database (table )?is locked")
# The error of a statement after the one that really failed: the transaction, or its savepoint, is
# gone. MariaDB drops both in a deadlock, SQLite when its disk fails.
_GONE_ERRNO, _GONE_SQLSTATES = 1305, {"25P02", "3B001"}
_SQLITE_GONE = re.compile(r"no such savepoint|no transaction is active")
# Refused, gone, too many connections, read-only, shutting down, statement timed out.
_OUTAGE_ERRNOS = {1040, 1053, 1129, 1158, 1159, 1160, 1161, 1203, 1290, 1317, 1836, 1927, 1969}
# A node that has lost its cluster: it takes no statement, or no commit.
_OUTAGE_ERRNOS |= {3024, *range(2000, 2056), 1047, 1180}
# A unique key is taken, or a foreign key points nowhere.
_KEY_ERRNOS = {1062, 1451, 1452}
_KEY_SQLSTATES = {"23503", "23505"}
_SQLITE_KEYS = re.compile(r"(UNIQUE|FOREIGN KEY) constraint failed")
_OUTAGE_SQLSTATE_CLASSES = ("08", "53", "57", "25006")


def is_transient(error: Exception) -> bool:
    """Return whether the same transaction may succeed when run again at once.

    Look also behind other errors: a savepoint that is gone with its transaction, a clean-up that
    failed, a group.
    """
    return any(_asks_to_run_again(each) or _is_aftermath(each) for each in causes(error))


def _asks_to_run_again(error: BaseException) -> bool:
    if isinstance(error, StaleDataError):
        return True
    original = original_of(error)
    if isinstance(original, sqlite3.Error):
        return _SQLITE_BUSY.search(str(original)) is not None
    return errno_of(original) in _TRANSIENT_ERRNOS or sqlstate_of(original) in _TRANSIENT_SQLSTATES


def _is_aftermath(error: BaseException) -> bool:
    """Return whether an error says only that the transaction has failed before."""
    if isinstance(error, PendingRollbackError):
        return True
    original = original_of(error)
    if isinstance(original, sqlite3.Error):
        return _SQLITE_GONE.search(str(original)) is not None
    if errno_of(original) == _GONE_ERRNO:
        return "SAVEPOINT" in str(original)  # else a function or procedure
    return sqlstate_of(original) in _GONE_SQLSTATES


def refusal_of(error: Exception) -> AppError | None:
    """Return the response to a database error; None for a defect of the app.

    A key conflict that no crud function handled is a race that another transaction won.
    """
    if is_outage(error):
        return Unavailable()
    return Conflict() if any(map(_is_lost_race, raised(error))) else None


def _is_lost_race(error: BaseException) -> bool:
    return isinstance(error, IntegrityError) and (
        errno_of(error.orig) in _KEY_ERRNOS
        or sqlstate_of(error.orig) in _KEY_SQLSTATES
        or _SQLITE_KEYS.match(str(error.orig)) is not None
    )


def is_outage(error: Exception) -> bool:
    """Return whether the database is away, full or too slow: the request was not at fault."""
    return any(isinstance(each, ConnectionError | TimeoutError) for each in raised(error)) or any(
        _asks_to_run_again(each) or _is_away(each) for each in causes(error)
    )


def _is_away(error: BaseException) -> bool:
    if isinstance(error, PoolTimeout):
        return True
    if not isinstance(error, DBAPIError):
        return False
    original = error.orig
    return (
        error.connection_invalidated
        or errno_of(original) in _OUTAGE_ERRNOS
        or sqlstate_of(original).startswith(_OUTAGE_SQLSTATE_CLASSES)
        or (
            isinstance(error, OperationalError | InterfaceError)
            and not sqlstate_of(original)
            and errno_of(original) is None
            # SQLite's name for an invalid statement: no such table, a syntax error.
            and getattr(original, "sqlite_errorname", None) != "SQLITE_ERROR"
        )
    )
