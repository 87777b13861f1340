"""Other rows that a row is shown with, as one text: how it is selected, and how it is split."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, Select, String, cast, func, literal

# Between the rows, and between the values, of what `rows_as_text` selects: neither is ever in a
# name, as both count as white space.
_ROW, _VALUE = "\x1e", "\x1f"


def rows_as_text(*columns: Any, of: Select[Any]) -> ColumnElement[str]:
    """A column that holds other rows, as one text: cheaper than a statement of its own."""
    texts: list[Any] = [
        column if isinstance(column.type, String) else cast(column, String) for column in columns
    ]
    row = texts[0]
    for text in texts[1:]:
        row = row + literal(_VALUE) + text
    return of.with_only_columns(func.aggregate_strings(row, _ROW)).scalar_subquery()


def join_rows(rows: list[str]) -> str | None:
    """Rows of one column as `rows_as_text` makes a text of them."""
    return _ROW.join(rows) or None


def split_values(text: str | None) -> list[str]:
    """The rows of a text that `rows_as_text` made of one column, in no order."""
    return text.split(_ROW) if text else []


def split_rows(text: str | None) -> list[list[str]]:
    """The rows of a text that `rows_as_text` made of several columns, in no order."""
    return [row.split(_VALUE) for row in split_values(text)]
