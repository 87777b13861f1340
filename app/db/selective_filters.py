"""Filters by what rows have (a tag, a role), with one SQL form for few matching rows and one for
many.

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
_ASSOCIATION_FACTOR = 600
# A condition on the row itself is tested in the index that is scanned.
_COLUMN_FACTOR = 250


class FilterForm(Enum):
    """The SQL form of a filter: for few rows, for many, or to count them."""

    selective = "selective"
    common = "common"
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


class SelectiveFilter:
    """A filter with one SQL form for few matching rows, one for many and one for counting.

    `matching_ids` selects the matching rows. `threshold_factor` sets from how many on they are
    many: so many times the square root of the number of rows up to the end of the page.
    """

    def __init__(
        self,
        filters: Mapping[FilterForm, ColumnElement[Any]],
        matching_ids: Select[Any],
        threshold_factor: int,
    ) -> None:
        self._filters = filters
        self._threshold_factor = threshold_factor
        enough = matching_ids.limit(bindparam("enough", type_=Integer)).subquery()
        # In the trash too: it is about how many rows are found by the index.
        self._up_to_enough = PreparedQuery(
            select(func.count()).select_from(enough), include_deleted=True
        )

    @classmethod
    def by_association(cls, model: type[TimestampedModel], ids: Select[Any]) -> SelectiveFilter:
        """Return the filter of the rows whose ids a select finds in another table."""
        (its_id,) = ids.selected_columns
        this_one = ids.where(its_id == model.id).correlate(model)
        filters: Mapping[FilterForm, ColumnElement[Any]] = {
            FilterForm.selective: _OneOf(model.id, ids.scalar_subquery()),
            FilterForm.common: this_one.scalar_subquery().is_not(None),
            FilterForm.count: model.id.in_(ids),
        }
        return cls(filters, ids, _ASSOCIATION_FACTOR)

    @classmethod
    def by_column(
        cls, model: type[TimestampedModel], condition: ColumnElement[bool]
    ) -> SelectiveFilter:
        """Return the filter of the rows that meet a condition themselves."""
        filters: Mapping[FilterForm, ColumnElement[Any]] = {
            FilterForm.selective: condition,
            FilterForm.common: _ByNoIndex(condition),
            FilterForm.count: condition,
        }
        return cls(filters, select(model.id).where(condition), _COLUMN_FACTOR)

    def filter(self, form: FilterForm) -> ColumnElement[Any]:
        """Return the condition in one of its forms."""
        return self._filters[form]

    async def choose_form(
        self, paginator: Paginator, query: PageQuery, parameters: dict[str, Any]
    ) -> FilterForm:
        """Return the form of the filter for a page: count the rows that match, up to a bound."""
        needed = query.page_size * (1 if query.cursor else query.page)
        enough = self._threshold_factor * isqrt(needed)
        (count,) = await paginator.totals.count(
            self._up_to_enough, {**parameters, "enough": enough}
        )
        # Fewer than that are all that there are: a page of theirs may be nearer to the end.
        from_end = max(count - needed, 0) + query.page_size
        is_many = count == enough or count >= self._threshold_factor * isqrt(min(needed, from_end))
        return FilterForm.common if is_many else FilterForm.selective
