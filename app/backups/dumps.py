"""Reads the SQL that mariadb-dump and mysqldump write for tables, and refuses any other.

Each line of theirs is whole: no text in quotes goes on in the next. So what a line does shows in it
alone, and what a client program takes for a command (`\\!`, `source`, `delimiter`) is in none.
"""

from __future__ import annotations

import re
from pathlib import Path

from app.backups.contents import BackupError, Contents

_QUOTED = re.compile(rb"'(?:[^'\\]++|\\.|'')*+'|`(?:[^`\\]|``)++`", re.DOTALL)
_SANDBOX = re.compile(rb"/\*M!999999\\- enable the sandbox mode \*/ ?")
_COMMENT = re.compile(rb"--(?: [^\\]*+)?")
_NAMED = re.compile(rb"(CREATE TABLE|INSERT INTO) `((?:[^`\\]|``)++)`")
_REVISION = re.compile(rb"\('([^'\\]*)'\)[,;]")
# With `?` for what is in quotes.
_ROWS = rb"(?:(?!--)[(),.?\w+ -])*+"
_INSERT = re.compile(rb"INSERT INTO \?(?: \([?, ]+\))? VALUES ?(" + _ROWS + rb")(;?)")
_ROW = re.compile(rb"\(" + _ROWS + rb"(?:(?<=,)|(;))")
_CREATE = re.compile(rb"CREATE TABLE \? \(")
# Neither a second statement nor a comment, but the versioned kind.
_DEFINITION = re.compile(
    rb"(?:(?!--|/\*(?!M?!\d{5,6} )|\bSELECT\b)[^\\'\"`;#])*+(;?)", re.IGNORECASE
)
_TABLES = re.compile(rb"LOCK TABLES \? WRITE;|UNLOCK TABLES;|ALTER TABLE \? (?:DIS|EN)ABLE KEYS;")
_VERSIONED = re.compile(rb"/\*M?!\d{5,6} (.*) \*/;")

_VARIABLES = rb"|".join(
    [
        *(rb"time_zone", rb"unique_checks", rb"foreign_key_checks", rb"sql_notes", rb"autocommit"),
        *(rb"character_set_client", rb"character_set_results", rb"collation_connection"),
        *(rb"note_verbosity", rb"sql_log_bin"),
    ]
)
_SESSION = rb"(?:@@(?:SESSION\.)?)?"
_ASSIGNED = rb"|".join(
    [
        rb"@\w+ *= *@@(?:SESSION\.)?\w+",
        # Another mode would read quotes in another way than we do.
        _SESSION + rb"sql_mode *= *(?:'NO_AUTO_VALUE_ON_ZERO'|@\w+)",
        _SESSION + rb"(?:" + _VARIABLES + rb") *= *(?:@\w+|'[+:\w]*'|\d+|utf8\w*)",
        rb"NAMES utf8\w*",
    ]
)
_SET = re.compile(
    rb"SET (?:" + _ASSIGNED + rb")(?:, *(?:" + _ASSIGNED + rb"))*;|COMMIT;"
    # MySQL's own, with global transaction ids.
    rb"|SET @@GLOBAL\.GTID_PURGED=(?:/\*!80000 '\+'\*/ )?'[\w:,-]*';",
    re.IGNORECASE,
)


def read_dump(source: Path) -> Contents:
    """Return what a dump holds; raise BackupError at the first line that is not of one."""
    reader = _Reader()
    with source.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not reader.takes(line.rstrip(b"\r\n")):
                reason = f"line {number} is none of a backup's"
                raise BackupError(f"{source} is damaged, or was tampered with: {reason}")
    if reader.is_within_statement:
        raise BackupError(f"{source} is cut off")
    return Contents(frozenset(reader.tables), reader.revision)


class _Reader:
    """Goes through a dump, line by line."""

    def __init__(self) -> None:
        self.tables: set[str] = set()
        self._revisions: list[bytes] = []
        self._statement = b""
        self._table = b""

    @property
    def is_within_statement(self) -> bool:
        """Whether a statement goes on."""
        return self._statement != b""

    @property
    def revision(self) -> str | None:
        """The one that the rows of Alembic's table name; None unless there is exactly one."""
        if len(self._revisions) != 1:
            return None
        return self._revisions[0].decode(errors="replace")

    def takes(self, line: bytes) -> bool:
        """Return whether a line is one that may come here."""
        bare = _QUOTED.sub(b"?", line)
        if self._statement:
            return self._goes_on(line, bare)
        if named := _NAMED.match(line):
            self._statement, self._table = named[1], named[2]
            return self._begins(line, bare)
        if not line or _COMMENT.fullmatch(line) or _SANDBOX.fullmatch(line):
            return True
        versioned = _VERSIONED.fullmatch(line)
        plain = versioned[1] + b";" if versioned else line
        return bool(_SET.fullmatch(plain) or _TABLES.fullmatch(_QUOTED.sub(b"?", plain)))

    def _begins(self, line: bytes, bare: bytes) -> bool:
        if self._statement == b"CREATE TABLE":
            self.tables.add(self._table.decode(errors="replace"))
            return _CREATE.fullmatch(bare) is not None
        found = _INSERT.fullmatch(bare)
        return found is not None and self._took_rows(line, bool(found[2]))

    def _goes_on(self, line: bytes, bare: bytes) -> bool:
        if self._statement == b"CREATE TABLE":
            found = _DEFINITION.fullmatch(bare)
            if found and found[1]:
                self._statement = b""
            return found is not None
        row = _ROW.fullmatch(bare)
        return row is not None and self._took_rows(line, bool(row[1]))

    def _took_rows(self, line: bytes, is_end: bool) -> bool:
        if self._table == b"alembic_version":
            self._revisions += _REVISION.findall(line)
        if is_end:
            self._statement = b""
        return True
