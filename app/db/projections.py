"""What is shown of a row: the fields of a response schema, and the columns that each is read from.

A `Projection` is the one place that says so of a resource: it writes the SELECT of reads and of
listings, turns what they return into what is shown, and shows new and changed rows alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import count
from operator import itemgetter
from typing import Any

from pydantic import BaseModel
from sqlalchemy import ColumnElement, Select, String, cast, func, literal, select

from app.db.queries import utc_timestamp

# Between the rows, and between the values, of an aggregated text: neither is ever in a name, as
# both count as white space.
_ROW, _VALUE = "\x1e", "\x1f"


@dataclass(frozen=True)
class Source:
    """How a field is read: one or more columns, and the function that converts their values to the
    field's value."""

    columns: tuple[Any, ...]
    value: Callable[..., Any]


class Projection:
    """The fields of a response schema, in its order, each from the model's column of that name, or
    from the column, `Source` or (for an object) `Projection` that is given under that name.

    `fields` is the schema, or names; `joins` are pairs of another table and its ON clause;
    `without` names fields that are not read from the database. Raise AttributeError for a field
    that has no column.
    """

    def __init__(
        self,
        fields: type[BaseModel] | Iterable[str],
        model: Any,
        *,
        joins: Iterable[tuple[Any, Any]] = (),
        without: Iterable[str] = (),
        **sources: Source | ColumnElement[Any] | Projection,
    ) -> None:
        names = fields.model_fields if isinstance(fields, type) else fields
        self._joins = tuple(joins)
        self._sources: dict[str, Any] = {
            name: sources[name] if name in sources else getattr(model, name)
            for name in names
            if name not in {*without}
        }
        self.columns = tuple(column for each in self._sources.values() for column in _columns(each))
        self.from_row = self._compiled()

    def select(self, *first: tuple[Any, Any]) -> Select[Any]:
        """Select the columns, with the joins; those of `first` come before the projection's."""
        statement: Select[Any] = select(*self.columns)
        for table, condition in (*first, *self._joins):
            statement = statement.join(table, condition)
        return statement

    def _compiled(self) -> Callable[[tuple[Any, ...]], dict[str, Any]]:
        """Return the function that turns a row, which begins with the columns, into what is shown.

        It is one dict display, written once from the names of the fields, as dataclasses write
        their methods: a loop over the fields takes twice as long for each row.
        """
        functions: dict[str, Any] = {}
        display = self._display(count(), functions)
        function: Callable[[tuple[Any, ...]], dict[str, Any]] = eval(  # noqa: S307 of our own names
            f"lambda row: {display}", functions
        )
        return function

    def _display(self, places: Iterator[int], functions: dict[str, Any]) -> str:
        members = []
        for name, source in self._sources.items():
            if isinstance(source, Projection):
                value = source._display(places, functions)
            else:
                value = ", ".join(f"row[{next(places)}]" for _ in _columns(source))
            if isinstance(source, Source):
                function = f"value_{len(functions)}"
                functions[function] = source.value
                value = f"{function}({value})"
            members.append(f"{name!r}: {value}")
        return f"{{{', '.join(members)}}}"

    def from_values(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return what is shown of a new row, given the value of each field."""
        return {name: values[name] for name in self._sources}

    def from_orm_object(self, row: Any) -> dict[str, Any]:
        """Return what is shown of a (flushed) object, whose attributes are named as the fields."""
        shown = {name: _as_json(getattr(row, name)) for name in self._sources}
        for name, source in self._sources.items():
            if isinstance(source, Projection):
                shown[name] = source.from_orm_object(shown[name])
        return shown


def _columns(source: Any) -> tuple[Any, ...]:
    return source.columns if isinstance(source, Source | Projection) else (source,)


def _as_json(value: Any) -> Any:
    return utc_timestamp(value) if isinstance(value, datetime) else value


def texts(column: Any, *, from_select: Select[Any]) -> Source:
    """Return the source of a list of texts of other rows, in order."""
    return Source(
        (aggregated(column, from_select=from_select),), lambda text: sorted(split_values(text))
    )


def references(id_: Any, name: Any, *, from_select: Select[Any]) -> Source:
    """Return the source of a list of the ids and names of other rows, ordered by name."""

    def value(text: str | None) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = [
            {"id": int(id_text), "name": name_text} for id_text, name_text in split_rows(text)
        ]
        found.sort(key=itemgetter("name"))
        return found

    return Source((aggregated(id_, name, from_select=from_select),), value)


def aggregated(*columns: Any, from_select: Select[Any]) -> ColumnElement[str]:
    """Return a column that holds other rows as one text: cheaper than a statement of its own."""
    texts: list[Any] = [
        column if isinstance(column.type, String) else cast(column, String) for column in columns
    ]
    row = texts[0]
    for text in texts[1:]:
        row = row + literal(_VALUE) + text
    return from_select.with_only_columns(func.aggregate_strings(row, _ROW)).scalar_subquery()


def split_values(text: str | None) -> list[str]:
    """Return the rows in the text of `aggregated`, of one column, in no order."""
    return text.split(_ROW) if text else []


def split_rows(text: str | None) -> list[list[str]]:
    """Return the rows in the text of `aggregated`, of several columns, in no order."""
    return [row.split(_VALUE) for row in split_values(text)]
