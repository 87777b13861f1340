"""Put rows in the trash with the row they depend on, and restore them with it.

The model declares it: `deleted_with` of a foreign key (`foreign_key` in `app/models/base.py`) names
the column that marks the rows. A row with several such parents has a mark for each, and is in the
trash as long as one of them is; a row that was deleted by itself has none, and stays where it is.

Parents are written before children. Rows that several parents can take along are locked by
ascending keys first: two transactions that meet in them cannot wait for each other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, case, func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.db.references import Column, class_of, deleted_with, few, key_of, marks_of
from app.models.base import INCLUDE_DELETED, Base, IsLive

_OPTIONS = {INCLUDE_DELETED: True, "synchronize_session": False}
Which = ColumnElement[bool]


class _Children(NamedTuple):
    """Rows of a table that go with those they point to by `column`; `mark` says which have, and
    `other_marks` are marks for other parents."""

    model: type[Any]
    column: Column
    mark: Column
    other_marks: list[Column]

    @property
    def key(self) -> Column:
        return key_of(class_of(self.column))

    @property
    def children(self) -> Iterator[_Children]:
        return _children_of(class_of(self.column))


async def delete_children(session: AsyncSession, row: Any) -> None:
    """Put in the trash what goes there with a row, which has gone and been flushed."""
    for children in _children_of(type(row)):
        await _delete(session, children, children.column == row.id, row.deleted_at)


async def restore_children(session: AsyncSession, row: Any) -> None:
    """Take out of the trash what went there with a row, which is live again and was flushed."""
    for children in _children_of(type(row)):
        await _restore(session, children, children.column == row.id)


async def _delete(
    session: AsyncSession, children: _Children, which: Which, deleted_at: datetime
) -> None:
    model, mark, other_marks = children.model, children.mark, children.other_marks
    gone_at = func.coalesce(model.deleted_at, deleted_at) if other_marks else deleted_at
    going = which & or_(IsLive(model.deleted_at), *other_marks)
    await _write(session, children, going, {mark.key: True, "deleted_at": gone_at})
    gone = select(children.key).where(which, mark)
    for below in children.children:
        await _delete(session, below, below.column.in_(gone), deleted_at)


async def _restore(session: AsyncSession, children: _Children, which: Which) -> None:
    model, mark, other_marks = children.model, children.mark, children.other_marks
    gone_at = case((or_(*other_marks), model.deleted_at)) if other_marks else None
    await _write(session, children, which & mark, {mark.key: False, "deleted_at": gone_at})
    live = select(children.key).where(which, IsLive(model.deleted_at))
    for below in children.children:
        await _restore(session, below, below.column.in_(live))


async def _write(
    session: AsyncSession, children: _Children, which: Which, values: Mapping[str, Any]
) -> None:
    """Write to rows without counting it as a change: what comes back is what went."""
    model = children.model
    if children.other_marks:
        await _lock(session, children.key, which)
    unchanged = {"updated_at": model.updated_at} if hasattr(model, "updated_at") else {}
    writing = update(model).where(which).values({**values, **unchanged})
    await session.execute(writing, execution_options=_OPTIONS)


async def _lock(session: AsyncSession, key: Column, which: Which) -> None:
    found = await session.scalars(
        select(key).where(which).order_by(key), execution_options=_OPTIONS
    )
    for keys in few(found.all()):
        locking = select(key).where(key.in_(keys)).order_by(key).with_for_update()
        await session.execute(locking, execution_options=_OPTIONS)


def _children_of(model: type[Base]) -> Iterator[_Children]:
    for column, mark in deleted_with(model):
        child = class_of(column)
        other_marks = [each for each in marks_of(child) if each.key != mark.key]
        yield _Children(child, column, mark, other_marks)
