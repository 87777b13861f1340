"""How tables hang together: their keys, and which rows go with which."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, cast

from sqlalchemy import inspect
from sqlalchemy.orm import InstrumentedAttribute

from app.models.base import Base

Column = InstrumentedAttribute[Any]
# How many values a foreign key is looked for at once: with 200 or more MariaDB goes by averages,
# and may scan the whole index.
FEW = 150


@cache
def key_of(model: type[Base]) -> Column:
    """Return the primary key of a table that has one of one column."""
    (column,) = inspect(model).primary_key
    return _attribute(model, column)


def few(keys: Sequence[Any]) -> list[Sequence[Any]]:
    """Cut keys into parts of FEW."""
    return [keys[start : start + FEW] for start in range(0, len(keys), FEW)]


@cache
def cascading(model: type[Base]) -> tuple[Column, ...]:
    """Return the columns of other tables whose rows the database deletes with those of this one;
    but for tables that have one row for each, which go with it at no cost."""
    return tuple(
        _attribute(mapper.class_, key.parent)
        for mapper in sorted(Base.registry.mappers, key=lambda mapper: mapper.class_.__name__)
        for key in inspect(mapper.class_).local_table.foreign_keys
        if key.column.table is inspect(model).local_table and key.ondelete == "CASCADE"
        if [key.parent] != [*inspect(mapper.class_).primary_key]
    )


def links_to(model: type[Base]) -> list[Column]:
    """Return those of them that belong to tables without ids, which link two others."""
    return [column for column in cascading(model) if not is_simple(class_of(column))]


def class_of(column: Column) -> type[Base]:
    """Return the model of a column."""
    return cast("type[Base]", column.class_)


def is_simple(model: type[Base]) -> bool:
    """Return whether the primary key is one column."""
    return len(inspect(model).primary_key) == 1


def _attribute(model: type[Base], column: Any) -> Column:
    return cast("Column", getattr(model, inspect(model).get_property_by_column(column).key))
