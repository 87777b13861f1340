"""Filters by what rows have (a tag, a role), written in one way if few rows have it, in another if
many do.

Few: find their ids, then sort them. Many: scan all rows in the order of the page and test each,
until the page is full. Optimisers do not know which it is: MariaDB and SQLite
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

from app.db.pagination import Paginator
from app.db.queries import PreparedQuery
from app.models.base import TimestampedModel
from app.schemas.pages import PageQuery

# For what rows have in another table, asking costs (rows up to the end of the page) * (rows of the
# table) / (those that have it); finding, looking up and sorting these, three times as much as there
# are of them. The two are equal where there are this times the root of the first: the root of a
# third of a table's rows, which are taken as a million.
_ROOT_OF_ROWS = 600
# A condition on the row itself is tested in the index that is scanned.
_ROOT_OF_ROWS_THEMSELVES = 250


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


class _ByNoIndex(FunctionElement[bool]):
    """A condition on a row itself, by which no index is to be chosen."""

    inherit_cache = True


@compiles(_ByNoIndex)
def _by_no_index(element: _ByNoIndex, compiler: SQLCompiler, **options: Any) -> str:
    (condition,) = (compiler.process(each, **options) for each in element.clauses)
    return f"({condition}) IS TRUE"


class Holders:
    """A filter of rows, by what some of them hold, in its ways to be written; `some` selects
    those, and `root` is what _ROOT_OF_ROWS is."""

    def __init__(
        self, filters: Mapping[Held, ColumnElement[Any]], some: Select[Any], root: int
    ) -> None:
        self._filters = filters
        self._root = root
        enough = some.limit(bindparam("enough", type_=Integer)).subquery()
        # In the trash too: it is about how many rows are found by the index.
        self._up_to_enough = PreparedQuery(
            select(func.count()).select_from(enough), include_deleted=True
        )

    @classmethod
    def of(cls, model: type[TimestampedModel], ids: Select[Any]) -> Holders:
        """Return the filter of the rows whose ids a select finds in another table."""
        (its_id,) = ids.selected_columns
        this_one = ids.where(its_id == model.id).correlate(model)
        filters: Mapping[Held, ColumnElement[Any]] = {
            Held.few: _OneOf(model.id, ids.scalar_subquery()),
            Held.many: this_one.scalar_subquery().is_not(None),
            Held.count: model.id.in_(ids),
        }
        return cls(filters, ids, _ROOT_OF_ROWS)

    @classmethod
    def by(cls, model: type[TimestampedModel], condition: ColumnElement[bool]) -> Holders:
        """Return the filter of the rows that meet a condition themselves."""
        filters: Mapping[Held, ColumnElement[Any]] = {
            Held.few: condition,
            Held.many: _ByNoIndex(condition),
            Held.count: condition,
        }
        return cls(filters, select(model.id).where(condition), _ROOT_OF_ROWS_THEMSELVES)

    def filter(self, held: Held) -> ColumnElement[Any]:
        """Return the filter, written for so many."""
        return self._filters[held]

    async def held(self, paginator: Paginator, query: PageQuery, given: dict[str, Any]) -> Held:
        """Return how to write the filter for a page: count the rows that match, up to a bound."""
        needed = query.page_size * (1 if query.cursor else query.page)
        enough = self._root * isqrt(needed)
        (found,) = await paginator.totals.counted(self._up_to_enough, {**given, "enough": enough})
        # Fewer than that are all that there are: a page of theirs may be nearer to the end.
        from_end = max(found - needed, 0) + query.page_size
        is_many = found == enough or found >= self._root * isqrt(min(needed, from_end))
        return Held.many if is_many else Held.few
