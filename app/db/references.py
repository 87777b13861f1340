"""How tables hang together: their keys, and which rows go with which."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, cast

from sqlalchemy import inspect
from sqlalchemy.orm import InstrumentedAttribute

from app.models.base import DELETED_WITH, PURGED_AS, Base, SoftDelete

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
        column
        for column, ondelete in _pointing_to(model)
        if ondelete == "CASCADE"
        if [column.key] != _keys_of(class_of(column))
    )


@cache
def purged_with(model: type[Base]) -> tuple[tuple[Column, str], ...]:
    """Return the columns of other tables whose rows are purged with those of this one because
    their model says so, and the names that they are counted by."""
    return tuple(
        (column, column.info.get(PURGED_AS) or class_of(column).__tablename__)
        for column, _ in _pointing_to(model)
        if column.info.get(PURGED_AS) or column.info.get(DELETED_WITH)
    )


@cache
def deleted_with(model: type[Base]) -> tuple[tuple[Column, Column], ...]:
    """Return the columns of other tables whose rows go to the trash with those of this one, and the
    columns that mark these."""
    return tuple(
        (column, getattr(class_of(column), column.info[DELETED_WITH]))
        for column, _ in _pointing_to(model)
        if column.info.get(DELETED_WITH)
    )


def marks_of(model: type[Base]) -> list[Column]:
    """Return the columns that mark rows of this table which went to the trash with another row."""
    columns = inspect(model).local_table.columns
    names = [each.info[DELETED_WITH] for each in columns if each.info.get(DELETED_WITH)]
    return [getattr(model, name) for name in names]


def models_with_trash() -> list[type[Any]]:
    """Return the models that have a trash, parents first."""
    by_table = {mapper.local_table: mapper.class_ for mapper in Base.registry.mappers}
    models = [by_table.get(table) for table in Base.metadata.sorted_tables]
    return [model for model in models if model is not None and issubclass(model, SoftDelete)]


def _keys_of(model: type[Base]) -> list[str]:
    return [_attribute(model, column).key for column in inspect(model).primary_key]


def _pointing_to(model: type[Base]) -> list[tuple[Column, str | None]]:
    """Return the foreign keys to a table, and what each does when a row of it is deleted."""
    return [
        (_attribute(mapper.class_, key.parent), key.ondelete)
        for mapper in sorted(Base.registry.mappers, key=lambda mapper: mapper.class_.__name__)
        for key in inspect(mapper.class_).local_table.foreign_keys
        if key.column.table is inspect(model).local_table
    ]


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
