"""Check a database: it must hold all of Unicode, and not belong to another application."""

from __future__ import annotations

import re
from collections.abc import Collection

from sqlalchemy import Connection, inspect, text
from sqlalchemy.engine import Inspector

VERSIONS = "alembic_version"
# Revisions are numbers that count up: those of a newer version, which this one does not know, too.
_REVISION = re.compile(r"(?!0000)[0-9]{4}")
# Columns that our tables have had from the first revision on, and hardly any others.
_MARKS = {"users": {"email_key", "password_hash"}, "outbox": {"recipient", "next_attempt_at"}}
_CHARSETS = "SELECT @@character_set_client, @@character_set_connection, @@character_set_results"
# Words are kept in ASCII on purpose: other characters are written out in it.
_NARROW = (
    "SELECT table_name, column_name, character_set_name FROM information_schema.columns"
    " WHERE table_schema = DATABASE() AND NOT (column_name = 'words' AND character_set_name ="
    " 'ascii') AND character_set_name NOT IN ('utf8mb4', 'utf16', 'utf16le', 'utf32')"
    " ORDER BY table_name, column_name"
)


def refusal_of(connection: Connection, tables: Collection[str]) -> str | None:
    """Return why a database cannot be used, in one line; None if it can. `tables` are our names.

    One that was never migrated can, and also one at another revision of ours.
    """
    return _narrowness(connection, tables) or strangeness(connection, tables)


def _narrowness(connection: Connection, tables: Collection[str]) -> str | None:
    if connection.dialect.name == "postgresql":
        encoding = connection.exec_driver_sql("SHOW server_encoding").scalar_one()
        if encoding != "UTF8":
            return f"the database's encoding is {encoding}: make one with ENCODING 'UTF8'"
    if connection.dialect.name == "mysql":
        spoken = {str(each) for each in connection.exec_driver_sql(_CHARSETS).one()}
        if strange := spoken - {"utf8mb4"}:
            return f"connections to the database speak {min(strange)}, not utf8mb4"
        for table, column, charset in connection.exec_driver_sql(_NARROW):
            if table in tables:
                return f"{table}.{column} is kept in {charset}: convert its table to utf8mb4"
    return None


def strangeness(connection: Connection, tables: Collection[str]) -> str | None:
    """Return what shows that a database is not ours; None if nothing does."""
    if connection.dialect.name == "postgresql":
        schema = connection.exec_driver_sql("SELECT current_schema()").scalar_one()
        if schema is None:
            return "search_path names no schema that exists: CREATE SCHEMA comes first"
    looked = inspect(connection)
    named = _named_like_ours(looked, tables)
    if not looked.has_table(VERSIONS):
        if named:
            return f"{named[0]} is there already, and not from a migration of ours"
        return None
    return _strange_revisions(connection, looked, tables) or _unmarked(looked, named)


def _strange_revisions(
    connection: Connection, looked: Inspector, tables: Collection[str]
) -> str | None:
    revisions = _revisions(connection, looked)
    if revisions is None or any(not _REVISION.fullmatch(each) for each in revisions):
        found = ", ".join(revisions or ["unknown"])
        return f"{VERSIONS} belongs to another application: revision {found}"
    if len(revisions) > 1:
        return f"{VERSIONS} belongs to another application: it has {len(revisions)} revisions"
    # Looked for once more: others may be migrating it for the first time just now.
    if revisions and not _named_like_ours(inspect(connection), tables):
        return (
            f"{VERSIONS} belongs to another application: at {revisions[0]}, with none of our tables"
        )
    return None


def _named_like_ours(looked: Inspector, tables: Collection[str]) -> list[str]:
    """Return what is there by the names of our tables, which only PostgreSQL takes literally."""
    found = [*looked.get_table_names(), *looked.get_view_names()]
    if looked.dialect.name == "postgresql":
        return sorted(name for name in found if name in tables)
    return sorted(name for name in found if name.lower() in tables)


def _revisions(connection: Connection, looked: Inspector) -> list[str] | None:
    columns = {column["name"] for column in looked.get_columns(VERSIONS)}
    if "version_num" not in columns:
        return None
    found = connection.execute(text(f"SELECT version_num FROM {VERSIONS}"))  # noqa: S608 a constant
    return sorted(str(each) for each in found.scalars())


def _unmarked(looked: Inspector, named: list[str]) -> str | None:
    for table in named:
        columns = {column["name"] for column in looked.get_columns(table)}
        if missing := _MARKS.get(table.lower(), set()) - columns:
            return f"{table} belongs to another application: it has no column {min(missing)}"
    return None
