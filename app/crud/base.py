"""What every noun's module needs: one row or 404, a flush that tells conflicts apart."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, Select, String, cast, func, literal
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.exceptions import AppError, NotFound
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


def joined(rows: list[str]) -> str | None:
    """Rows of one column as `gathered` makes a text of them."""
    return _ROW.join(rows) or None


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


def changed_by(changes: Mapping[str, Any], row: object) -> list[str]:
    """The names of those values that a row does not have yet, sorted."""
    return sorted(name for name, value in changes.items() if getattr(row, name) != value)


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


async def add_if_missing(session: AsyncSession, row: object) -> bool:
    """Insert a row unless its key is taken already, also by somebody doing so right now."""
    try:
        async with session.begin_nested():
            session.add(row)
    except IntegrityError:
        return False
    return True
