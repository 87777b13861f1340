"""What is shown of a row: the fields of a response schema, and the columns that each is read from.

A `Projection` is the one place that says so of a resource: it writes the SELECT of reads and of
listings, turns what they return into what is shown, and shows new and changed rows alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from operator import itemgetter
from typing import Any

from pydantic import BaseModel
from sqlalchemy import ColumnElement, Select, String, cast, func, literal, select

from app.db.queries import moment

# Between the rows, and between the values, of an aggregated text: neither is ever in a name, as
# both count as white space.
_ROW, _VALUE = "\x1e", "\x1f"


@dataclass(frozen=True)
class Source:
    """What a field is read from: columns, and the function that makes its value of theirs.

    It takes the value of one column, or a tuple of the values of several.
    """

    columns: tuple[Any, ...]
    value: Callable[[Any], Any]


class Projection:
    """The fields of a response schema, in its order, each from the model's column of that name or
    from the `Source` that is given under that name.

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
        self.names = tuple(name for name in names if name not in {*without})
        self._joins = tuple(joins)
        self._nested = {
            name: source for name, source in sources.items() if isinstance(source, Projection)
        }
        columns: list[Any] = []
        behind: list[Any] = []
        self._values: list[tuple[str, Callable[[Any], Any], Callable[[Any], Any]]] = []
        for place, name in enumerate(self.names):
            source: Any = sources.get(name)
            if isinstance(source, Projection):
                source = Source(source.columns, source.item)
            if not isinstance(source, Source):
                columns.append(getattr(model, name) if source is None else source)
                continue
            # The first column stands in the field's place, so that a dict of names and values has
            # the schema's order; the others follow behind all fields.
            first, *others = source.columns
            columns.append(first)
            places = [len(self.names) + len(behind) + n for n in range(len(others))]
            behind += others
            self._values.append((name, itemgetter(place, *places), source.value))
        self.columns: tuple[Any, ...] = (*columns, *behind)

    def select(self, *first: tuple[Any, Any]) -> Select[Any]:
        """Select the columns, with the joins; those of `first` come before the projection's."""
        statement: Select[Any] = select(*self.columns)
        for table, condition in (*first, *self._joins):
            statement = statement.join(table, condition)
        return statement

    def item(self, row: tuple[Any, ...]) -> dict[str, Any]:
        """Return what is shown of a row that begins with the columns."""
        shown = dict(zip(self.names, row, strict=False))
        for name, values_in, value in self._values:
            shown[name] = value(values_in(row))
        return shown

    def of(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return what is shown of a new row, given the value of each field."""
        return {name: values[name] for name in self.names}

    def of_object(self, row: Any) -> dict[str, Any]:
        """Return what is shown of a (flushed) object, whose attributes are named as the fields."""
        nested = self._nested
        return {
            name: nested[name].of_object(value) if name in nested else _as_json(value)
            for name, value in ((name, getattr(row, name)) for name in self.names)
        }


def _as_json(value: Any) -> Any:
    return moment(value) if isinstance(value, datetime) else value


def texts(column: Any, *, of: Select[Any]) -> Source:
    """Return the source of a list of texts of other rows, in order."""
    return Source((aggregated(column, of=of),), lambda text: sorted(split_values(text)))


def references(id_: Any, name: Any, *, of: Select[Any]) -> Source:
    """Return the source of a list of the ids and names of other rows, ordered by name."""

    def value(text: str | None) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = [
            {"id": int(id_text), "name": name_text} for id_text, name_text in split_rows(text)
        ]
        found.sort(key=itemgetter("name"))
        return found

    return Source((aggregated(id_, name, of=of),), value)


def aggregated(*columns: Any, of: Select[Any]) -> ColumnElement[str]:
    """Return a column that holds other rows as one text: cheaper than a statement of its own."""
    texts: list[Any] = [
        column if isinstance(column.type, String) else cast(column, String) for column in columns
    ]
    row = texts[0]
    for text in texts[1:]:
        row = row + literal(_VALUE) + text
    return of.with_only_columns(func.aggregate_strings(row, _ROW)).scalar_subquery()


def split_values(text: str | None) -> list[str]:
    """Return the rows in the text of `aggregated`, of one column, in no order."""
    return text.split(_ROW) if text else []


def split_rows(text: str | None) -> list[list[str]]:
    """Return the rows in the text of `aggregated`, of several columns, in no order."""
    return [row.split(_VALUE) for row in split_values(text)]
