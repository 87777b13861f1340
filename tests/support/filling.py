"""Rows for any schema at all, and what is in one: for migrations, which models know nothing of."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import Column, Connection, MetaData, Table, insert, select
from sqlalchemy import types as sql
from sqlalchemy.dialects import mysql

from app.db.migrations import FTS_PREFIX

Dump = dict[str, dict[str, list[str]]]
# Beside the rows that migrations make themselves.
_IDS = range(1001, 1004)
_LONG = 300


def reflected(connection: Connection) -> MetaData:
    """The tables there are, as the database describes them."""
    metadata = MetaData()
    # But for the indexes of SQLite that are tables.
    metadata.reflect(connection, only=lambda name, _: not name.startswith(FTS_PREFIX))
    metadata.remove(metadata.tables["alembic_version"])
    return metadata


def fill_every_table(connection: Connection) -> None:
    """Three rows in every table; the last one has only what it must have."""
    for table in reflected(connection).sorted_tables:
        for number in _IDS:
            row = {
                column.name: _value(table, column, number)
                for column in table.columns
                if column.computed is None
            }
            connection.execute(insert(table).values(row))


def _value(table: Table, column: Column[Any], number: int) -> Any:
    if column.nullable and number == _IDS[-1]:
        return None
    if column.foreign_keys or column.name == "id":
        return number
    if column.name == "words":  # in ASCII, and of a type of its own on PostgreSQL
        return f"w{number}"
    for kind, make in _MAKE.items():
        if isinstance(column.type, kind):
            return make(number, column.type)
    raise AssertionError(f"no value known for {table.name}.{column.name}: {column.type!r}")


def _moment(number: int, type_: Any) -> datetime:
    return datetime(2026, 2, 28, 23, 59, 59, number, tzinfo=UTC if type_.timezone else None)


def _text(number: int, type_: Any) -> str:
    # In quotes, as MariaDB keeps JSON as a text that must be some.
    room = min(type_.length or _LONG, _LONG)
    return f'"{number}ñ✓{"😀" * (room - 8)}"'[:room]


_MAKE: dict[type[Any], Callable[[int, Any], Any]] = {
    sql.JSON: lambda number, _: {"ñ": ["😀", number, None]},
    sql.Boolean: lambda number, _: number % 2 == 0,
    mysql.TINYINT: lambda number, _: number % 2,
    sql.Integer: lambda number, _: number,
    sql.Date: lambda *_: date(1990, 2, 28),
    sql.DateTime: _moment,
    sql.Numeric: lambda *_: Decimal(1),
    sql.LargeBinary: lambda number, _: bytes([0, 255, number % 256]),
    sql.String: _text,
}


def dump(connection: Connection) -> Dump:
    """Every value of every table, by column, in the order of the keys."""
    found: Dump = {}
    for table in reflected(connection).sorted_tables:
        rows = connection.execute(select(table).order_by(*table.primary_key.columns)).all()
        found[table.name] = {
            column.name: [repr(row[index]) for row in rows]
            for index, column in enumerate(table.columns)
        }
    return found


def shared(one: Dump, other: Dump) -> tuple[Dump, Dump]:
    """What two schemas have in common, table by table and column by column."""
    names = {table: one[table].keys() & other[table].keys() for table in one.keys() & other.keys()}
    parts = [{t: {c: each[t][c] for c in cs} for t, cs in names.items()} for each in (one, other)]
    return parts[0], parts[1]
