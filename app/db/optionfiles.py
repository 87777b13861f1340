"""Option files of MariaDB and MySQL (`~/.my.cnf`), which a URL may name by `read_default_file`.

Read once, here, and as the clients do: the driver would read them for every connection, with the
quotes around a password, and without the options about TLS.
"""

from __future__ import annotations

import os
import re
from configparser import Error, RawConfigParser
from pathlib import Path
from typing import Any

from sqlalchemy.engine import URL

from app.db.tls import is_tls_option

# Prefixes of the clients that do not change which option is meant.
_PREFIX = re.compile("^(?:loose-)?(?:enable-)?")
_FILE, _GROUP = "read_default_file", "read_default_group"
_PLACES = {"user": "username", "password": "password", "host": "host", "database": "database"}


def filled_in(url: URL) -> URL:
    """Return a URL with what its option file adds to it; raise ValueError if that is not readable.

    What the URL says itself counts more.
    """
    if _FILE not in url.query:
        return url.difference_update_query([_GROUP])
    found = _options(str(url.query[_FILE]), str(url.query.get(_GROUP, "client")))
    url = url.difference_update_query([_FILE, _GROUP])
    for name, place in _PLACES.items():
        if name in found and getattr(url, place) is None:
            given: Any = {place: found[name]}
            url = url.set(**given)
    if url.port is None and re.fullmatch(r"[0-9]{1,5}", found.get("port", "")):
        url = url.set(port=int(found["port"]))
    added = {name: value for name, value in found.items() if is_tls_option(name)}
    if "socket" in found:
        added["unix_socket"] = found["socket"]
    if "skip-ssl" in found:
        added["ssl"] = "false"
    return url.update_query_dict({**added, **url.query})


def _options(name: str, group: str) -> dict[str, str]:
    """Return the options of a group; those without a value are switched on."""
    # Path.expanduser would fail for a user without a home.
    path = Path(os.path.expanduser(name))
    parser = RawConfigParser(allow_no_value=True, strict=False, delimiters=("=",))
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
        parser.read_string("\n".join(line for line in lines if not line.startswith("!")))
    except OSError as error:
        raise ValueError(f"{_FILE} is not readable: {path}: {error.strerror}") from None
    except (Error, ValueError):
        raise ValueError(f"{_FILE} is no option file: {path}") from None
    # An included file may ask for TLS: it must not be ignored.
    if any(line.startswith("!") for line in lines):
        raise ValueError(f"{_FILE} includes other files: name the one that counts, {path}")
    if not parser.has_section(group):
        raise ValueError(f"{_FILE} has no group [{group}]: {path}")
    given: Any = parser.items(group)
    return {
        _PREFIX.sub("", option.replace("_", "-")): "true" if value is None else _unquoted(value)
        for option, value in given
    }


def _unquoted(value: str) -> str:
    is_quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "'\""
    return value[1:-1] if is_quoted else value
