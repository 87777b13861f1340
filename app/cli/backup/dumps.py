"""Reads the SQL that mariadb-dump and mysqldump write for tables, and refuses any other.

Each line of theirs is whole: no text in quotes goes on in the next. So what a line does shows in it
alone, and what a client program takes for a command (`\\!`, `source`, `delimiter`) is in none.
"""

from __future__ import annotations

import re
from pathlib import Path

from app.cli.backup.contents import BackupError, Contents

# No possessive quantifiers: before Python 3.11.5 they miss matches of groups.
_TEXT = rb"'[^'\\]*(?:(?:\\.|'')[^'\\]*)*'"
_NAME = rb"`(?:[^`\\]|``)+`"
_QUOTED = re.compile(_TEXT + rb"|" + _NAME, re.DOTALL)
_SANDBOX = re.compile(rb"/\*M!999999\\- enable the sandbox mode \*/ ?")
_COMMENT = re.compile(rb"--(?: [^\\]*)?")
_NAMED = re.compile(rb"(CREATE TABLE|INSERT INTO) `((?:[^`\\]|``)+)`")
_COLUMN = re.compile(rb" +`((?:[^`\\]|``)+)` ")
_REVISION = re.compile(rb"\('([^'\\]*)'\)[,;]")
# Literals alone: what calls a function, or looks into another table, is none of a row's.
_LITERAL = rb"|".join(
    [
        rb"NULL|-?\d+(?:\.\d+)?(?:e[+-]?\d+)?(?![\w.])",
        rb"(?:_binary )?(?:0x[0-9A-F]+(?!\w)|" + _TEXT + rb")|b'[01]*'",
    ]
)
_ROW = re.compile(
    rb"\((?:" + _LITERAL + rb")(?:, ?(?:" + _LITERAL + rb"))*\)(?:, ?|(;))",
    re.IGNORECASE | re.DOTALL,
)
_INSERT = re.compile(
    rb"INSERT INTO " + _NAME + rb"(?: \(" + _NAME + rb"(?:, ?" + _NAME + rb")*\))? VALUES ?"
)
# With `?` for what is in quotes.
_CREATE = re.compile(rb"CREATE TABLE \? \(")
# Neither a second statement nor a comment, but the versioned kind; and no table that is kept
# elsewhere: in a file that the dump names, or on another server.
_DEFINITION = re.compile(
    rb"(?:(?!--|/\*(?!M?!\d{5,6} )"
    rb"|\b(?:SELECT|LOAD_FILE|CONNECTION|DIRECTORY|UNION)\b"
    rb"|\bENGINE\b(?! ?= ?(?:InnoDB|MyISAM|Aria|MEMORY)\b))"
    rb"[^\\'\"`;#])*(;?)",
    re.IGNORECASE,
)
_TABLES = re.compile(rb"LOCK TABLES \? WRITE;|UNLOCK TABLES;|ALTER TABLE \? (?:DIS|EN)ABLE KEYS;")
_VERSIONED = re.compile(rb"/\*M?!\d{5,6} (.*) \*/;")

_SESSION = rb"(?:@@(?:SESSION\.)?)?"
# Another mode, or another character set, would end texts elsewhere than we see them end.
_VALUES = {
    rb"sql_mode": rb"'NO_AUTO_VALUE_ON_ZERO'",
    rb"time_zone": rb"'[+-]\d\d:\d\d'",
    rb"character_set_client|character_set_results|collation_connection": rb"utf8\w*",
    rb"unique_checks|foreign_key_checks|sql_notes|autocommit": rb"[01]",
    rb"note_verbosity|sql_log_bin": rb"\d",
}
_ASSIGNED = rb"|".join(
    [
        rb"@\w+ *= *@@(?:SESSION\.)?\w+|NAMES utf8\w*",
        *(
            _SESSION + rb"(?:" + names + rb") *= *(?:@\w+|" + value + rb")"
            for names, value in _VALUES.items()
        ),
    ]
)
_KEPT = re.compile(rb"@(\w+) *= *@@(?:SESSION\.)?(\w+)", re.IGNORECASE)
_PUT_BACK = re.compile(rb"(\w+) *= *@(\w+)", re.IGNORECASE)
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
            if not _is_utf8(line) or not reader.takes(line.rstrip(b"\r\n")):
                reason = f"line {number} is none of a backup's"
                raise BackupError(f"{source} is damaged, or was tampered with: {reason}")
    if reader.is_within_statement:
        raise BackupError(f"{source} is cut off")
    return Contents(reader.tables, reader.revision)


def _is_utf8(line: bytes) -> bool:
    """Return whether the server, which reads a dump as UTF-8, sees the characters that we do."""
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True


class _Reader:
    """Goes through a dump, line by line."""

    def __init__(self) -> None:
        self.tables: dict[str, set[str]] = {}
        self._revisions: list[bytes] = []
        self._statement = b""
        self._table = ""
        self._kept: dict[bytes, bytes] = {}

    @property
    def is_within_statement(self) -> bool:
        """Return whether a statement goes on."""
        return self._statement != b""

    @property
    def revision(self) -> str | None:
        """Return the revision in Alembic's table; None unless there is exactly one row."""
        if len(self._revisions) != 1:
            return None
        return self._revisions[0].decode()

    def takes(self, line: bytes) -> bool:
        """Return whether a line is one that may come here."""
        if self._statement:
            return self._goes_on(line)
        if named := _NAMED.match(line):
            self._statement, self._table = named[1], named[2].decode()
            return self._begins(line)
        if not line or _COMMENT.fullmatch(line) or _SANDBOX.fullmatch(line):
            return True
        versioned = _VERSIONED.fullmatch(line)
        plain = versioned[1] + b";" if versioned else line
        return self._sets(plain) or bool(_TABLES.fullmatch(_QUOTED.sub(b"?", plain)))

    def _sets(self, plain: bytes) -> bool:
        """Return whether this sets variables as dumps do: one that was kept is put back, and no
        other gets its value."""
        pairs = [(name, kept) for kept, name in _KEPT.findall(plain)] + _PUT_BACK.findall(plain)
        return _SET.fullmatch(plain) is not None and all(
            self._kept.setdefault(kept.lower(), name.lower()) == name.lower()
            for name, kept in pairs
        )

    def _begins(self, line: bytes) -> bool:
        if self._statement == b"CREATE TABLE":
            self.tables[self._table] = set()
            return _CREATE.fullmatch(_QUOTED.sub(b"?", line)) is not None
        found = _INSERT.match(line)
        return found is not None and (found.end() == len(line) or self._rows(line, found.end()))

    def _goes_on(self, line: bytes) -> bool:
        if self._statement == b"INSERT INTO":
            return self._rows(line, 0)
        if column := _COLUMN.match(line):
            self.tables[self._table].add(column[1].decode())
        found = _DEFINITION.fullmatch(_QUOTED.sub(b"?", line))
        if found and found[1]:
            self._statement = b""
        return found is not None

    def _rows(self, line: bytes, start: int) -> bool:
        """Return whether there are rows from here to the end of a line."""
        # Row by row: a line may hold a megabyte of them.
        place = start
        while (found := _ROW.match(line, place)) and not found[1] and found.end() < len(line):
            place = found.end()
        if found is None or found.end() < len(line):
            return False
        if self._table == "alembic_version":
            self._revisions += _REVISION.findall(line, start)
        if found[1]:
            self._statement = b""
        return True
