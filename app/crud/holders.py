"""Filters by what rows have (a tag, a role), written in one way for what few have, in another for
what many do.

Few: find their ids, then sort them. Many: go through all rows in the order of the page and ask each
whether it has it, until the page is full. Optimisers do not know which it is: MariaDB and SQLite
sort a third of a million posts for 20 of them, PostgreSQL walks through a million for the 20 of a
rare tag.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from math import isqrt
from typing import Any

from sqlalchemy import ColumnElement, Integer, Select, bindparam, func, select
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

from app.crud.pages import Pages
from app.models.base import Row
from app.reading import Query
from app.schemas.pages import PageQuery

# Asking costs (rows up to the end of the page) * (rows of the table) / (those that have it);
# finding, looking up and sorting these, three times as much as there are of them. The two are equal
# where there are this times the root of the first: the root of a third of a table's rows, which
# are taken as a million.
_ROOT_OF_ROWS = 600


class Held(Enum):
    """How a filter is written: for `few` rows, for `many`, or to `count` them."""

    few = "few"
    many = "many"
    count = "count"


class _OneOf(FunctionElement[bool]):
    """Whether a column is among what a select finds, which is found first."""

    inherit_cache = True


@compiles(_OneOf)
def _one_of(element: _OneOf, compiler: SQLCompiler, **options: Any) -> str:
    column, found = (compiler.process(each, **options) for each in element.clauses)
    return f"{column} IN {found}"


@compiles(_OneOf, "postgresql")
def _one_of_on_postgresql(element: _OneOf, compiler: SQLCompiler, **options: Any) -> str:
    column, found = (compiler.process(each, **options) for each in element.clauses)
    return f"{column} = ANY (ARRAY{found})"


class Holders:
    """A filter of the rows of `model` by what they have; `ids` selects the ids of all that do."""

    def __init__(self, model: type[Row], ids: Select[Any]) -> None:
        (its_id,) = ids.selected_columns
        this_one = ids.where(its_id == model.id).correlate(model)
        self._filters: Mapping[Held, ColumnElement[Any]] = {
            Held.few: _OneOf(model.id, ids.scalar_subquery()),
            Held.many: this_one.scalar_subquery().is_not(None),
            Held.count: model.id.in_(ids),
        }
        some = ids.limit(bindparam("enough", type_=Integer)).subquery()
        self._up_to_enough = Query(select(func.count()).select_from(some))

    def filter(self, held: Held) -> ColumnElement[Any]:
        """Return the filter, written for so many."""
        return self._filters[held]

    async def held(self, pages: Pages, query: PageQuery, given: dict[str, Any]) -> Held:
        """Return how to write the filter for a page: count who has it, as far as need be."""
        needed = query.page_size * (1 if query.cursor else query.page)
        enough = _ROOT_OF_ROWS * isqrt(needed)
        (found,) = await pages.counted(self._up_to_enough, {**given, "enough": enough})
        return Held.many if found == enough else Held.few
