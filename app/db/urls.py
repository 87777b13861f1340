"""Database URLs: the driver that the app speaks through, and options that it knows.

What is not known is refused when the settings are read: a driver would end in a traceback, or go
on without what was asked for. No text here shows a value of a URL, which may be a password.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qsl

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from app.db import optionfiles
from app.db.startup_options import settings_in
from app.db.tls import is_tls_option, tls_of

_DRIVERS = {
    "sqlite": "sqlite+aiosqlite",
    "mysql": "mysql+aiomysql",
    "mariadb": "mysql+aiomysql",
    "postgres": "postgresql+psycopg",
    "postgresql": "postgresql+psycopg",
}
_BEGINNING = "DATABASE_URL must begin with sqlite://, mysql://, mariadb:// or postgresql://"
_MAX_PORT = 65_535
_NAME = re.compile(r"[A-Za-z][\w.-]{0,40}")


def database_url(raw: str) -> URL:
    """Return a URL as the app uses it; raise ValueError, with a text for the operator, when it is
    none, or has options that are not known."""
    url = _url_of(raw)
    kinds = {"sqlite": _sqlite, "mysql": _mariadb, "postgresql": _postgresql}
    with _named():
        if url.port is not None and not 0 < url.port <= _MAX_PORT:
            raise ValueError("the port has to be a number from 1 to 65535")
        if missing := [name for name in _without_value(raw) if name not in url.query]:
            raise ValueError(f"{_safe_names(missing)} has no value")
        return kinds[url.get_backend_name()](url)


def refuse_unusable(raw: str) -> None:
    """Raise ValueError for a URL that is none, or names files that are not what they should be."""
    url = database_url(raw)
    if url.get_backend_name() == "mysql":
        with _named():
            tls_of(url).context()


@contextmanager
def _named() -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise ValueError(f"DATABASE_URL: {error}") from None


# Up to where the host begins: a password may hold a question mark.
_AUTHORITY = re.compile(r"^[^:]*://(?:[^:/]*(?::[^@]*)?@)?")


def _url_of(raw: str) -> URL:
    try:
        url = make_url(raw)
    # A port that is no number is a ValueError, with a part of the URL in its text.
    except (ArgumentError, ValueError):
        raise ValueError(_BEGINNING) from None
    name = _DRIVERS.get(url.drivername, url.drivername)
    if name not in _DRIVERS.values():
        raise ValueError(_BEGINNING)
    return url.set(drivername=name)


def _without_value(raw: str) -> Iterator[str]:
    """Yield the options without a value, which `make_url` leaves out."""
    query = _AUTHORITY.sub("", raw).partition("?")[2]
    return (name for name, value in parse_qsl(query, keep_blank_values=True) if not value)


def _safe_names(names: Iterable[str]) -> str:
    """Return the names of options as one text, without any that may be part of a secret."""
    return ", ".join(name if _NAME.fullmatch(name) else "(unreadable)" for name in names)


# --- Values ----------------------------------------------------------------------------------

Check = Callable[[str], bool]


def _is_text(_: str) -> bool:
    return True


def _is_flag(value: str) -> bool:
    # As SQLAlchemy reads them.
    words = "true false yes no on off t f y n 1 0"
    return value.lower() in words.split()


def _is_number(value: str) -> bool:
    return re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", value) is not None


def _is_whole(value: str) -> bool:
    return re.fullmatch(r"-?[0-9]{1,9}", value) is not None


def _is_seconds(value: str) -> bool:
    return re.fullmatch(r"[1-9][0-9]{0,8}", value) is not None


def _is_ssl_mode(value: str) -> bool:
    return value in _SSL_MODES


_SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")


def _refuse_unknown(url: URL, known: Mapping[str, Check], hints: Mapping[str, str]) -> None:
    """Raise ValueError when an option is not known, is given twice, or has a value that its driver
    could not read."""
    if unknown := [name for name in url.query if name not in known]:
        found = {hints.get(re.sub(r"[-_]", "", name.lower())) for name in unknown}
        advice = "".join(f"; {hint}" for hint in sorted(found - {None}, key=str))
        raise ValueError(f"unknown options: {_safe_names(unknown)}{advice}")
    for name, value in url.query.items():
        if not isinstance(value, str):
            raise ValueError(f"{name} is given more than once")
        if not known[name](value):
            raise ValueError(f"{name} has a value that it cannot have")


_POOL = "DATABASE_POOL_SIZE has the number of connections"
_POOL_HINTS = dict.fromkeys(
    ("poolsize", "maxoverflow", "connectionlimit", "maxpoolsize", "poolmaxsize"), _POOL
)


# --- Places ----------------------------------------------------------------------------------

_PLACES = {
    "user": "username",
    "password": "password",
    "passwd": "password",
    "host": "host",
    "db": "database",
    "database": "database",
    "dbname": "database",
}


def _put_in_place(url: URL, *names: str) -> URL:
    """Return a URL with what is given as an option where it belongs: passwords are hidden there."""
    for name in names:
        value = url.query.get(name)
        if isinstance(value, str):
            given: Any = {_PLACES[name]: value}
            url = url.set(**given).difference_update_query([name])
    return url


# --- SQLite ----------------------------------------------------------------------------------

_SQLITE: dict[str, Check] = {
    "uri": _is_flag,
    "check_same_thread": _is_flag,
    "timeout": _is_number,
    "isolation_level": _is_text,
    "detect_types": _is_whole,
    "cached_statements": _is_whole,
}
# Of SQLite's own URIs (`file:…`).
_SQLITE_URI = dict.fromkeys(
    ("mode", "cache", "immutable", "nolock", "psow", "vfs", "modeof"), _is_text
)
_SQLITE_HINTS = dict.fromkeys(_SQLITE_URI, "add uri=true, and begin the path with file:")


def _sqlite(url: URL) -> URL:
    if url.host or url.username or url.password or url.port:
        raise ValueError(
            "it names a host: a path comes after three slashes, sqlite:///data/x.db, or after four"
            " if it is absolute, sqlite:////srv/x.db"
        )
    is_uri = str(url.query.get("uri", "")).lower() in {"true", "yes", "on", "t", "y", "1"}
    known = _SQLITE | _SQLITE_URI if is_uri else _SQLITE
    _refuse_unknown(url, known, _SQLITE_HINTS | _POOL_HINTS)
    return url


# --- MariaDB, MySQL --------------------------------------------------------------------------

_MARIADB: dict[str, Check] = {
    "charset": _is_text,
    "connect_timeout": _is_seconds,
    "unix_socket": _is_text,
    "program_name": _is_text,
    "auth_plugin": _is_text,
    "use_unicode": _is_flag,
}
_OURS = "the app sets these itself: leave them out"
_MARIADB_HINTS = _POOL_HINTS | dict.fromkeys(
    ("sqlmode", "initcommand", "autocommit", "clientflag", "localinfile", "collation"), _OURS
)


def _mariadb(url: URL) -> URL:
    url = _put_in_place(url, "user", "password", "passwd", "host", "db", "database")
    if re.search("[&;=]", url.database or ""):
        raise ValueError("options begin with ? behind the database, and have & between them")
    url = optionfiles.filled_in(url)
    tls = [name for name in url.query if is_tls_option(name)]
    _refuse_unknown(url, _MARIADB | dict.fromkeys(tls, _is_text), _MARIADB_HINTS)
    tls_of(url)
    # Texts are Unicode, in any case.
    return url.difference_update_query(["use_unicode"])


# --- PostgreSQL ------------------------------------------------------------------------------

_PATH = "write options=-csearch_path%3DNAME instead"
# These would stand on the command lines of pg_dump and pg_restore.
_SECRETS = {"sslpassword", "scram_client_key", "scram_server_key", "oauth_client_secret"}
_POSTGRESQL_HINTS = _POOL_HINTS | {
    **dict.fromkeys(
        (name.replace("_", "") for name in _SECRETS),
        "keep secrets out of options: a service file has room for them (service=name)",
    ),
    **dict.fromkeys(("schema", "searchpath", "currentschema"), _PATH),
    **dict.fromkeys(("ssl", "tls", "usessl", "sslmode"), "write sslmode=require instead"),
    **dict.fromkeys(("sslca", "sslrootcert"), "write sslrootcert= instead"),
}


def _postgresql(url: URL) -> URL:
    # Others are spared the driver.
    from psycopg.pq import Conninfo  # noqa: PLC0415 see above

    names = [option.keyword.decode() for option in Conninfo.get_defaults()]
    checks: dict[str, Check] = {"sslmode": _is_ssl_mode, "connect_timeout": _is_whole}
    known = {name: checks.get(name, _is_text) for name in names if name not in _SECRETS}
    # Several hosts are written as several options.
    hosts = {name: url.query[name] for name in ("host", "port") if name in url.query}
    _refuse_unknown(url.difference_update_query(hosts), known, _POSTGRESQL_HINTS)
    settings_in(str(url.query.get("options", "")))
    return _put_in_place(url, "user", "password", "dbname")
