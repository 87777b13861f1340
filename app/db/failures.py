"""Errors of the database wherever they surface: found in a chain, and described."""

from __future__ import annotations

import traceback
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sqlalchemy.exc import DBAPIError, PendingRollbackError, StatementError

_APP = Path(__file__).parents[1]
# Between the crud functions and the driver: they pass every statement on.
_PASS_ON = tuple(_APP / "db" / name for name in ("sqlite.py", "mariadb.py", "postgresql.py"))
_DRIVERS = {"aiomysql", "psycopg", "pymysql", "sqlite3"}
_MAX_CHAIN = 50
_MAX_FRAMES = 5
_MAX_TRACE = 1_500


def causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and everything behind it: members of groups, what it was raised from or while
    handling, what it wraps. What is behind an error comes after it."""
    waiting, seen = deque([error]), {id(error)}
    while waiting:
        current = waiting.popleft()
        yield current
        members = current.exceptions if isinstance(current, BaseExceptionGroup) else ()
        behind = (*members, current.__cause__, current.__context__, getattr(current, "orig", None))
        for each in behind:
            if isinstance(each, BaseException) and id(each) not in seen and len(seen) < _MAX_CHAIN:
                seen.add(id(each))
                waiting.append(each)


def raised(error: BaseException) -> Iterator[BaseException]:
    """Yield the error itself, or what an exception group consists of."""
    if isinstance(error, BaseExceptionGroup):
        for member in error.exceptions:
            yield from raised(member)
    else:
        yield error


def original_of(error: BaseException) -> BaseException | None:
    """Return the driver's exception, wrapped by SQLAlchemy or not; None for any other error."""
    if isinstance(error, DBAPIError):
        return error.orig
    modules = {kind.__module__.partition(".")[0] for kind in type(error).__mro__}
    return error if modules & _DRIVERS else None


def errno_of(original: BaseException | None) -> int | None:
    """Return the MariaDB/MySQL error number of a driver's exception."""
    first = original.args[0] if original is not None and original.args else None
    return first if isinstance(first, int) else None


def sqlstate_of(original: BaseException | None) -> str:
    """Return the SQLSTATE of a driver's exception, "" if it has none."""
    return getattr(original, "sqlstate", None) or ""


def described(error: BaseException) -> dict[str, Any]:
    """Return what a log may hold about an error: `error`, its kind, and for one of the database the
    number or SQLSTATE of the first thing that went wrong, and where in `app/` that was.

    Never the driver's text: PostgreSQL puts the whole row, hashes and all, in it.
    """
    chain = [*causes(error)]
    originals = [original for each in chain if (original := original_of(each)) is not None]
    if not originals:
        return {"error": type(error).__name__}
    original = originals[-1]
    found: dict[str, Any] = {"error": type(original).__name__}
    if (errno := errno_of(original)) is not None:
        found["errno"] = errno
    if sqlstate := sqlstate_of(original):
        found["sqlstate"] = sqlstate
    if name := getattr(original, "sqlite_errorname", None):
        found["sqlite"] = name
    return found | {"where": _where(chain)}


def is_of_database(error: BaseException) -> bool:
    """Return whether the text of an error, or of any behind it, may hold data of the database."""
    kinds = (StatementError, PendingRollbackError)
    return any(isinstance(each, kinds) or original_of(each) for each in causes(error))


def trace_of(error: BaseException) -> str:
    """Return the end of an error's trace: places and lines of code, no texts of errors."""
    # Formatted here: Python 3.13 underlines whole statements, which leaves no room for `app/`.
    frames = traceback.extract_tb(error.__traceback__)
    lines = [
        f'  File "{at.filename}", line {at.lineno}, in {at.name}\n    {at.line}\n' for at in frames
    ]
    return "".join(lines)[-_MAX_TRACE:]


def _where(chain: list[BaseException]) -> str:
    """Return the innermost frames of `app/` in a chain of errors, the very innermost first.

    All of the chain: an error that was caught has not passed the functions around it.
    """
    found: dict[tuple[Path, str], str] = {}
    for error in reversed(chain):
        walk = traceback.walk_tb(error.__traceback__)
        for frame in reversed(traceback.StackSummary.extract(walk, lookup_lines=False)):
            path = Path(frame.filename)
            if path.is_relative_to(_APP) and path not in _PASS_ON:
                place = f"{path.relative_to(_APP.parent)}:{frame.lineno} {frame.name}"
                found.setdefault((path, frame.name), place)
    return " < ".join([*found.values()][:_MAX_FRAMES])
