"""What an operator did wrong, or has to mend, in one line: a trace is for defects of ours.

With LOG_LEVEL=DEBUG the trace is shown all the same.
"""

from __future__ import annotations

import errno
import re
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sqlalchemy.engine import URL
from typer.core import TyperGroup

from app.cli.database import PAST_POOLER
from app.config import Settings, read_settings
from app.db.failures import causes, errno_of, original_of, sqlstate_of
from app.db.sqlite import why_unusable

_MAX_LINE = 500
# No such table or column; SQLite has words for it, and no number of its own.
_OTHER_TABLES = {1146, 1054, "42P01", "42703"}
_SQLITE_OTHER_TABLES = re.compile(r"no such (table|column)|has no column")
# Access, rights, unknown databases; and whatever ended or refused a connection.
_REFUSED_ERRNOS = {1021, 1040, 1044, 1045, 1046, 1049, 1053, 1114, 1129, 1130, 1142, 1143, 1203}
_REFUSED_ERRNOS |= {1205, 1226, 1227, 1251, 1290, 1370, 1698, 1820, 1836, 1862, 3118, 3159, 4151}
_REFUSED_ERRNOS |= {*range(2000, 2062)}
_REFUSED_SQLSTATES = ("08", "28", "3D", "3F", "42501", "53", "57", "25006", "55")
_REMEDIES = {
    **dict.fromkeys((1045, 1698, "28"), "set the right user and password in DATABASE_URL"),
    **dict.fromkeys((1049, "3D"), "make that database, or name another in DATABASE_URL"),
    **dict.fromkeys((1044, 1142, 1143, "42501"), "grant the user of DATABASE_URL that right"),
}
_UNREACHED = "see whether it runs there, and whether DATABASE_URL is right"


class Commands(TyperGroup):
    """Commands that end with a line on stderr: status 2 for a wrong call, 1 for other mistakes."""

    def main(self, *arguments: Any, **options: Any) -> Any:
        """Run a command and end the process."""
        try:
            status = super().main(*arguments, **{**options, "standalone_mode": False})
        except Exception as error:
            line = _line_of(error)
            if line is None or (not _is_usage(error) and _is_debugging()):
                raise
            if not _is_usage(error):
                raise SystemExit(f"cimiento: {line}") from None
            # Nothing is left to say where help was shown.
            sys.stderr.write(f"cimiento: {line}\n" if line else "")
            status = getattr(error, "exit_code", 1)
        sys.exit(status if isinstance(status, int) else 0)


def _line_of(error: Exception) -> str | None:
    """Return what went wrong as one line; None for a defect."""
    message = error.format_message() if _is_usage(error) else _explained(error)  # type: ignore[attr-defined]
    if type(error).__name__ == "Abort":
        message = "ended: nothing was entered"
    return None if message is None else " ".join(message.split())[:_MAX_LINE]


def _is_usage(error: Exception) -> bool:
    """Return whether a call was wrong: reported by typer, or by Celery's click."""
    return hasattr(error, "format_message") and hasattr(error, "exit_code")


def _is_debugging() -> bool:
    try:
        return read_settings().log_level == "DEBUG"
    except SystemExit:
        return False


def _explained(error: Exception) -> str | None:
    if PAST_POOLER not in getattr(error, "__notes__", ()):
        return _cause(error, read_settings)
    message = _cause(error, _settings_past_pooler)
    return message and message.replace("DATABASE_URL", "DATABASE_DIRECT_URL")


def _settings_past_pooler() -> Settings:
    settings = read_settings()
    return settings.model_copy(update={"database_url": settings.database_direct_url})


def _cause(error: Exception, settings: Callable[[], Settings]) -> str | None:
    chain = [*causes(error)]
    originals = [found for each in chain if (found := original_of(each)) is not None]
    if originals:
        return _of_database(originals[-1], settings())
    if any(type(each).__module__.startswith(("redis", "kombu")) for each in chain):
        return f"Redis does not do what it should: {error}: see whether REDIS_URL is right"
    if type(error).__module__.startswith("alembic."):
        return f"not migrated: {error}"
    # What is wrong with a file is known by its name; without one it was a connection.
    if isinstance(error, OSError) and (error.filename or error.errno == errno.ENOSPC):
        return _of_file(error, settings())
    if isinstance(error, OSError):
        url = settings().url
        return f"the database at {_place(url)} does not answer: {_words(error)}: {_UNREACHED}"
    return None


def _of_file(error: OSError, settings: Settings) -> str:
    if not error.filename:
        return (
            f"{error.strerror}: DATA_DIR ({settings.data_dir}), or where the output goes, is full"
        )
    path = str(error.filename)
    is_ours = Path(path).is_relative_to(settings.data_dir)
    where = f"{path} (in DATA_DIR)" if is_ours else path
    return f"{where}: {error.strerror}"


def _of_database(error: BaseException, settings: Settings) -> str | None:
    """Return what a driver says, if it is not about a statement of ours that is wrong."""
    if isinstance(error, sqlite3.Error):
        return _of_sqlite(error, settings)
    number, state = errno_of(error), sqlstate_of(error)
    if number in _OTHER_TABLES or state in _OTHER_TABLES:
        return "the tables are missing or of an older version: run scripts/migrate first"
    # psycopg has no code for what no server has said.
    is_operational = any(kind.__name__ == "OperationalError" for kind in type(error).__mro__)
    is_unreached = not state and number is None and is_operational
    if not (is_unreached or number in _REFUSED_ERRNOS or state.startswith(_REFUSED_SQLSTATES)):
        return None
    remedy = _REMEDIES.get(number or state) or _REMEDIES.get(state[:2]) or _remedy(str(error))
    words = _without_password(_words(error), settings.url)
    return f"the database refuses: {words} ({_place(settings.url)}): {remedy}"


def _remedy(text: str) -> str:
    """Return the remedy for a failed login or connection: psycopg has the server's words alone."""
    if any(words in text for words in ("authentication failed", "no password", "role ")):
        return str(_REMEDIES["28"])
    return str(_REMEDIES["3D"]) if "does not exist" in text else _UNREACHED


def _of_sqlite(error: sqlite3.Error, settings: Settings) -> str | None:
    if _SQLITE_OTHER_TABLES.search(str(error)):
        return "the tables are missing or of an older version: run scripts/migrate first"
    why = why_unusable(settings.url)
    # A wrong statement, a key that is taken: defects.
    if not why and getattr(error, "sqlite_errorname", "").startswith(
        ("SQLITE_ERROR", "SQLITE_CONSTRAINT", "SQLITE_MISUSE", "SQLITE_MISMATCH", "SQLITE_RANGE")
    ):
        return None
    name = "DATABASE_URL" if settings.has_database_url else "DATA_DIR"
    return f"the database refuses: {settings.url.database} ({name}): {why or error}"


def _place(url: URL) -> str:
    host = f"[{url.host}]" if ":" in (url.host or "") else url.host
    port = f":{url.port}" if url.port else ""
    return f"{url.get_backend_name()}://{host or ''}{port}/{url.database or ''}"


def _words(error: BaseException) -> str:
    last = error.args[-1] if error.args else ""
    text = " ".join(str(last if isinstance(last, str) else error).split())
    return text.rstrip(".") or type(error).__name__


def _without_password(text: str, url: URL) -> str:
    return text.replace(url.password, "***") if url.password else text
