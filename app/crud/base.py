"""What every noun's module needs: one row or 404, a flush that tells conflicts apart."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, Insert, Select, String, cast, func, insert, inspect, literal
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from app.core.exceptions import AppError, NotFound
from app.database import Act, note_written
from app.models.base import Base
from app.reading import Query, Reader

T = TypeVar("T")
# Between the rows, and between the values, of what `gathered` selects: neither is ever in a
# name, as both count as white space.
_ROW, _VALUE = "\x1e", "\x1f"


async def read_one(reader: Reader, query: Query, **given: Any) -> tuple[Any, ...]:
    """The only row of a query, or NotFound: the same answer for unknown and invisible."""
    rows = await reader.rows(query, given)
    if not rows:
        raise NotFound
    return rows[0]


def gathered(*columns: Any, of: Select[Any]) -> ColumnElement[str]:
    """A column that holds other rows, as one text: cheaper than a statement of its own."""
    texts: list[Any] = [
        column if isinstance(column.type, String) else cast(column, String) for column in columns
    ]
    row = texts[0]
    for text in texts[1:]:
        row = row + literal(_VALUE) + text
    return of.with_only_columns(func.aggregate_strings(row, _ROW)).scalar_subquery()


def scattered(text: str | None) -> list[str]:
    """The rows of a text that `gathered` made of one column, in no order."""
    return text.split(_ROW) if text else []


def scattered_rows(text: str | None) -> list[list[str]]:
    """The rows of a text that `gathered` made of several columns, in no order."""
    return [row.split(_VALUE) for row in scattered(text)]


async def one_or_404(session: AsyncSession, statement: Select[T]) -> T:
    """The only row of a statement, or NotFound: the same answer for unknown and invisible."""
    found = (await session.execute(statement)).scalar_one_or_none()
    if found is None:
        raise NotFound
    return found


async def flush_or_conflict(session: AsyncSession, conflicts: Mapping[str, type[AppError]]) -> None:
    """Write what is pending; a violated constraint named in `conflicts` raises its error.

    The database is asked, not looked at before: a look would miss concurrent writers.
    """
    try:
        await session.flush()
    except IntegrityError as error:
        text = str(error.orig)
        for constraint, conflict in conflicts.items():
            # SQLite names the column of a violated constraint, the others the constraint.
            table, _, column = constraint.removeprefix("uq_").partition("_")
            if constraint in text or f"{table}.{column}" in text:
                raise conflict from None
        raise


async def flush_out(session: AsyncSession, row: object) -> None:
    """Write that a row went to the trash, and forget it: the session would go on finding it."""
    await session.flush()
    session.expunge(row)


async def insert_row(session: AsyncSession, model: type[Base], **values: Any) -> int:
    """Write one row and make no object of it, where many do so at once; its (first) key."""
    return await session.run_sync(_insert_row, model, values)


def _insert_row(session: Session, model: type[Base], values: dict[str, Any]) -> int:
    result = session.connection().execute(_insertion(model), values)
    note_written(session, model.__tablename__, Act.insert)
    key: Any = result.inserted_primary_key
    return int(key[0])


@cache
def _insertion(model: type[Base]) -> Insert:
    table: Any = inspect(model).local_table
    return insert(table)


async def add_if_missing(session: AsyncSession, row: object) -> bool:
    """Insert a row unless its key is taken already, also by somebody doing so right now."""
    try:
        async with session.begin_nested():
            session.add(row)
    except IntegrityError:
        return False
    return True
