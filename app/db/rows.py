"""Helpers of the crud modules: one row or 404, a flush that tells conflicts apart."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, TypeVar

from sqlalchemy import Select, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.exceptions import AppError, NotFound
from app.db.queries import PreparedQuery, QueryRunner
from app.models.base import DatabaseNow

T = TypeVar("T")
_NOW = select(DatabaseNow())


async def read_one(reader: QueryRunner, query: PreparedQuery, **parameters: Any) -> tuple[Any, ...]:
    """Return the only row of a query; raise NotFound otherwise, for unknown and invisible alike."""
    rows = await reader.rows(query, parameters)
    if not rows:
        raise NotFound
    return rows[0]


async def database_now(session: AsyncSession) -> datetime:
    """Return the time by the database's clock, which all processes share."""
    now: datetime = (await session.execute(_NOW)).scalar_one()
    return now


async def one_or_404(session: AsyncSession, statement: Select[T]) -> T:
    """Return the only row of a statement; raise NotFound for unknown and invisible alike."""
    row = (await session.execute(statement)).scalar_one_or_none()
    if row is None:
        raise NotFound
    return row


def changed_fields(changes: Mapping[str, Any], row: object) -> list[str]:
    """Return the names of the values that differ from those of a row, sorted."""
    return sorted(name for name, value in changes.items() if getattr(row, name) != value)


async def flush_or_conflict(session: AsyncSession, conflicts: Mapping[str, type[AppError]]) -> None:
    """Write what is pending; a violated constraint named in `conflicts` raises its error.

    No query before it: that would miss concurrent writers.
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


async def flush_and_expunge(session: AsyncSession, row: object) -> None:
    """Write that a row went to the trash, and forget it: the session would go on finding it."""
    await session.flush()
    session.expunge(row)


async def add_if_missing(session: AsyncSession, row: object) -> bool:
    """Insert a row unless its key is taken, also by a concurrent transaction; return whether."""
    try:
        async with session.begin_nested():
            session.add(row)
    except IntegrityError:
        return False
    return True
