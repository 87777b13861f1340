"""Reads the SQL that pg_restore writes for tables, and refuses any other.

pg_restore copies what an archive says, whatever it is, and a superuser's statements may run
programs (`COPY … TO PROGRAM`) or write files. So each statement has to be one of those that make
tables and fill them, and none calls a function but those that compute a value from others.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from app.cli.backup.contents import BackupError

# What is quoted, and comments; a carriage return ends these as well.
_TOKEN = re.compile(
    rb"--[^\n\r]*|\"(?:[^\"]|\"\")[^\"]*(?:\"\"[^\"]*)*\""
    rb"|(?<![\w&])(?:[Ee]'[^'\\]*(?:(?:\\.|'')[^'\\]*)*'|'[^']*(?:''[^']*)*')",
    re.DOTALL,
)
_TEXT, _IDENTIFIER = b"\x01", b"\x02"
# What is read in another way than here: other kinds of quotes and comments, and a text that goes
# on after a line break in the way of the one before.
_UNCLEAR = re.compile(rb"[^\x01\x02\t-\r -~]|['\"$\\]|/\*|\x01\s+\x01")
_NAME = rb"(?:[a-z_]\w*|\x02)"
_PATH = _NAME + rb"(?:\." + _NAME + rb")*"
_OPTIONS = rb"[\w -]*"
_REST = rb"[^;]*"
_TABLE = rb"ALTER TABLE (?:ONLY )?" + _PATH + rb" "
_COLUMN = _TABLE + rb"ALTER COLUMN " + _NAME + rb" "
_STATEMENT = re.compile(
    rb"|".join(
        [
            rb"CREATE SCHEMA " + _NAME,
            rb"CREATE EXTENSION IF NOT EXISTS " + _NAME + rb" WITH SCHEMA " + _NAME,
            rb"CREATE TABLE " + _PATH + rb" \(" + _REST + rb"\)",
            rb"CREATE SEQUENCE " + _PATH + _OPTIONS,
            rb"ALTER SEQUENCE " + _PATH + rb" OWNED BY " + _PATH,
            _COLUMN + rb"SET DEFAULT " + _REST,
            _COLUMN + rb"SET (?:STATISTICS|STORAGE|COMPRESSION) \w+",
            _COLUMN
            + rb"ADD GENERATED (?:ALWAYS|BY DEFAULT) AS IDENTITY \( SEQUENCE NAME "
            + _PATH
            + _OPTIONS
            + rb"\)",
            _TABLE + rb"ADD CONSTRAINT " + _NAME + rb" (?:PRIMARY|UNIQUE|CHECK|FOREIGN)\b" + _REST,
            _TABLE + rb"(?:CLUSTER ON|REPLICA IDENTITY) " + _OPTIONS,
            rb"CREATE (?:UNIQUE )?INDEX "
            + _NAME
            + rb" ON (?:ONLY )?"
            + _PATH
            + rb" USING "
            + _REST,
            rb"SELECT pg_catalog\.setval\(\x01, -?\d+, (?:true|false)\)",
        ]
    )
)
_SETTING = re.compile(
    rb"SET (?:(?:statement|lock|idle_in_transaction_session|transaction)_timeout = 0"
    # Those whose characters hold no byte of ASCII within.
    rb"|client_encoding = '(?:UTF8|SQL_ASCII|LATIN\d+|WIN\d+|ISO_8859_\d|KOI8[RU])'"
    rb"|standard_conforming_strings = on|check_function_bodies = false|xmloption = content"
    rb"|client_min_messages = warning|row_security = off|default_tablespace = ''"
    rb"|default_table_access_method = heap|default_with_oids = false)"
    rb"|SELECT pg_catalog\.set_config\('search_path', '', false\)"
)
# A query within an expression, or in the place of one.
_QUERY = re.compile(rb"\b(?:SELECT|EXECUTE|TABLE)\b", re.IGNORECASE)
_HEAD = re.compile(rb"CREATE TABLE " + _PATH + rb"|ALTER TABLE|SELECT pg_catalog\.setval")
_REFERENCE = re.compile(rb"\bREFERENCES " + _PATH)
_CALL = re.compile(rb"([\w.]+|\x02) ?\(")
_CALLED = frozenset(
    # What stands before a bracket and calls nothing.
    b"key unique check index as and or not in any all when then else case include where using"
    b" distinct identity default end is between like ilike array row"
    # Types that have a length, and ways of indexing.
    b" varying character char varchar bpchar numeric decimal timestamp time interval bit float"
    b" btree hash gin gist brin spgist"
    # Functions that compute a value from others.
    b" nextval now clock_timestamp statement_timestamp transaction_timestamp gen_random_uuid"
    b" uuid_generate_v4 coalesce nullif greatest least lower upper initcap length char_length"
    b" octet_length btrim ltrim rtrim trim substring substr left right replace concat concat_ws"
    b" md5 sha256 encode decode abs round floor ceil ceiling mod power sqrt date_trunc date_part"
    b" extract timezone age make_date to_char to_date to_timestamp to_number to_tsvector setweight"
    b" jsonb_build_object json_build_object jsonb_build_array jsonb_array_length jsonb_typeof"
    b" json_typeof array_length cardinality position strpos".split()
)
_QUOTED_NAME = rb"(?:[a-z_]\w*|\"(?:[^\"\n\0]|\"\")+\")"
_COPY = re.compile(
    rb"COPY (?:" + _QUOTED_NAME + rb"\.)?(" + _QUOTED_NAME + rb") \("
    rb"" + _QUOTED_NAME + rb"(?:, " + _QUOTED_NAME + rb")*\) FROM stdin;\n"
)
_CREATED = re.compile(rb"CREATE TABLE (?:" + _QUOTED_NAME + rb"\.)?(" + _QUOTED_NAME + rb") \(\n")
_COLUMN_LINE = re.compile(rb"^    (" + _QUOTED_NAME + rb") ", re.MULTILINE)
_END_OF_ROWS = b"\\.\n"
# For psql; never run here.
_FOR_PSQL = re.compile(rb"\\(?:un)?restrict [0-9A-Za-z]+\n")


@dataclass(frozen=True)
class Block:
    """Statements, and the rows of a table after them; the last block has none."""

    statements: bytes
    created: dict[str, set[str]]
    copy: bytes
    table: str
    rows: Iterator[bytes]


def blocks(source: Path, lines: Iterator[bytes]) -> Iterator[Block]:
    """Yield a script's blocks, whose rows have to be read before the next one; raise BackupError
    at the first statement that pg_restore would not write for a backup."""
    statements = b""
    for line in lines:
        if copy := _COPY.fullmatch(line):
            created = _created_by(source, statements)
            yield Block(statements, created, line, _plain(copy[1]), _rows(lines))
            statements = b""
        elif not _FOR_PSQL.fullmatch(line):
            statements += line
    yield Block(statements, _created_by(source, statements), b"", "", iter(()))


def _rows(lines: Iterator[bytes]) -> Iterator[bytes]:
    for line in lines:
        if line == _END_OF_ROWS:
            return
        yield line
    raise BackupError("the archive ends among the rows of a table")


def _created_by(source: Path, script: bytes) -> dict[str, set[str]]:
    """Return the tables that a script makes, with their columns."""
    found = {}
    for raw, bare in _statements(script):
        if not (_SETTING.fullmatch(raw) or _is_ours(bare)):
            start = " ".join(raw[:40].decode(errors="replace").split())
            reason = f"{start!r} is none of a backup's statements"
            raise BackupError(f"{source} is damaged, or was tampered with: {reason}")
        if table := _CREATED.match(raw):
            columns = _COLUMN_LINE.findall(raw)
            found[_plain(table[1])] = {_plain(column) for column in columns}
    return found


def _statements(script: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield each statement, as it is and with marks for what is in quotes."""
    marked = _TOKEN.sub(_mark, script)
    start = 0
    while marked[start:].strip():
        end = marked.find(b";", start)
        if end < 0:
            end = len(marked)
        skipped = len(marked[start:end]) - len(marked[start:end].lstrip())
        raw, bare = script[start + skipped : end].rstrip(), marked[start + skipped : end].rstrip()
        yield raw, b"" if _UNCLEAR.search(bare) else bare
        start = end + 1


def _mark(token: re.Match[bytes]) -> bytes:
    """Return a mark of the same length, so that both texts have the same places."""
    marks = {b"-": b" ", b'"': _IDENTIFIER}
    return marks.get(token[0][:1], _TEXT) * len(token[0])


def _is_ours(bare: bytes) -> bool:
    short = re.sub(rb"([\x01\x02])\1+", rb"\1", b" ".join(bare.split()))
    if _STATEMENT.fullmatch(short) is None:
        return False
    inner = _REFERENCE.sub(b"", _HEAD.sub(b"", short, count=1))
    called = {name.lower() for name in _CALL.findall(inner)}
    return not _QUERY.search(inner) and called <= _CALLED


def _plain(name: bytes) -> str:
    """Return a name without its quotes."""
    text = name.decode(errors="replace")
    return text[1:-1].replace('""', '"') if text.startswith('"') else text
