"""The statements of the pages of a resource: its filters, its orders, its counts."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Integer,
    Select,
    and_,
    bindparam,
    case,
    func,
    or_,
    select,
)
from sqlalchemy.orm import Mapped
from sqlalchemy.types import TypeEngine

from app.core.words import search_words
from app.db.projections import Projection
from app.db.queries import PreparedQuery
from app.db.search import Search, Unindexed, search_parameters
from app.models.base import UtcDateTime
from app.schemas.pages import PageQuery

Column = Mapped[Any] | ColumnElement[Any]
AnySelect = Select[*tuple[Any, ...]]


@dataclass(frozen=True, eq=False)
class PaginatedQuery:
    """The query of a listing. Create one for each set of filters: their values are parameters.

    `filtered_ids` selects from the resource with its filters, columns and order left open, and
    `count_queries` how many there are in parts that do not overlap, if that is cheaper; `id`
    breaks ties; `sort_columns` maps each sort to the never-null column it orders by; `projection`
    is what is shown of each row. `name` keeps the cursors of one listing out of another. A `search`
    narrows `filtered_ids` to the rows that it finds; there are two ways to page and to count them.
    """

    name: str
    filtered_ids: AnySelect
    id: Column
    sort_columns: Mapping[str, Column]
    projection: Projection
    include_deleted: bool = False
    count_queries: Sequence[AnySelect] = ()
    search: Search | None = None
    _queries: dict[Hashable, PreparedQuery] = field(default_factory=dict)
    _datetime_sorts: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        datetime_sorts = {
            name for name, key in self.sort_columns.items() if isinstance(_type(key), UtcDateTime)
        }
        self._datetime_sorts.update(datetime_sorts)

    def counts(self) -> list[PreparedQuery]:
        """Return queries whose sum is the number of rows that match."""
        parts = self.count_queries or (count_of(self.filtered_ids),)
        return [self._prepared(n, partial(parts.__getitem__, n)) for n in range(len(parts))]

    def page(self, sort: str, *, after: bool) -> PreparedQuery:
        """Return the query of a page, whose rows end with their sort key and id: `limit` rows
        behind the position `last_key`, `last_id` or behind the first `offset`."""
        return self._prepared((sort, after), lambda: self._paging(sort, after))

    def scanned_page(self, sort: str, *, after: bool) -> PreparedQuery:
        """Return the query of a page of search results that tests only the first `scan_limit` rows
        in sort order, without the search index."""
        return self._prepared((sort, after, "scanned"), lambda: self._scanning(sort, after))

    def bounded_count(self) -> PreparedQuery:
        """Return the query that counts the rows a search finds, up to `bound`."""
        return self._prepared("bounded", self._bounded_counting)

    def page_from_end(self, sort: str) -> PreparedQuery:
        """Return the query of a page: `limit` rows in front of the last `offset`."""
        return self._prepared((sort, "end"), lambda: self._paging(sort, after=False, from_end=True))

    def scanned_count(self, sort: str = "") -> PreparedQuery:
        """Return the query that counts the rows a search finds among the first `scan_limit`, in
        the order of a sort or in any, and the rows that were tested."""
        return self._prepared(("scanned", sort), lambda: self._scanned_counting(sort))

    def sorts_by_datetime(self, sort: str) -> bool:
        """Return whether a sort is by a date and time, which is text outside the database."""
        return sort.removeprefix("-") in self._datetime_sorts

    def _prepared(self, name: Hashable, build: Callable[[], AnySelect]) -> PreparedQuery:
        if name not in self._queries:
            self._queries[name] = PreparedQuery(
                build(),
                include_deleted=self.include_deleted,
                is_expensive=self.search is not None,
            )
        return self._queries[name]

    def _paging(self, sort: str, after: bool, *, from_end: bool = False) -> AnySelect:
        key, descending = self.sort_columns[sort.removeprefix("-")], sort.startswith("-")
        ids = self._ids(key.label("sort_key"))
        if self.search is not None:
            ids = self._among_found(self.search, key.label("sort_key"))
            key = Unindexed(key)
        ids = ids.where(_behind(key, self.id, descending)) if after else ids.offset(_OFFSET)
        ordered = ids.order_by(*_ordered(key, self.id, descending is not from_end))
        return self._shown(ordered, descending)

    def _scanning(self, sort: str, after: bool) -> AnySelect:
        key, descending = self.sort_columns[sort.removeprefix("-")], sort.startswith("-")
        ids = self._tested(key.label("sort_key"))
        if after:
            ids = ids.where(_behind(key, self.id, descending))
        scanned = (
            ids.order_by(*_ordered(key, self.id, descending)).limit(_SCAN_LIMIT).subquery("scanned")
        )
        ids = select(scanned.c.id, scanned.c.sort_key).where(scanned.c.is_found)
        if not after:
            ids = ids.offset(_OFFSET)
        ids = ids.order_by(*_ordered(scanned.c.sort_key, scanned.c.id, descending))
        return self._shown(ids, descending)

    def _shown(self, ids: AnySelect, descending: bool) -> AnySelect:
        page = ids.limit(bindparam("limit", type_=Integer)).subquery("page")
        rows = self.projection.select((page, page.c.id == self.id))
        rows = rows.add_columns(page.c.sort_key, page.c.id)
        return rows.order_by(*_ordered(page.c.sort_key, page.c.id, descending))

    def _bounded_counting(self) -> AnySelect:
        assert self.search is not None
        ids = self._among_found(self.search)
        return select(func.count()).select_from(
            ids.limit(bindparam("bound", type_=Integer)).subquery("counted")
        )

    def _scanned_counting(self, sort: str) -> AnySelect:
        tested = self._tested()
        if sort:
            key, descending = self.sort_columns[sort.removeprefix("-")], sort.startswith("-")
            tested = tested.order_by(*_ordered(key, self.id, descending))
        scanned = tested.limit(_SCAN_LIMIT).subquery("scanned")
        return select(func.count(case((scanned.c.is_found, 1))), func.count()).select_from(scanned)

    def _among_found(self, search: Search, *columns: Any) -> AnySelect:
        """Select what the search index finds, and read the index first: optimisers would sometimes
        scan every row of the listing before it."""
        found = search.found.cte("found").prefix_with("MATERIALIZED", dialect="postgresql")
        # In front of what the columns come from: MariaDB goes by the order.
        ids = self.filtered_ids.with_only_columns(self.id.label("id"), *columns).select_from(found)
        return ids.where(found.c.id == self.id).prefix_with("STRAIGHT_JOIN", dialect="mysql")

    def _tested(self, *columns: Any) -> AnySelect:
        assert self.search is not None
        return self._ids(*columns, self.search.test.label("is_found"))

    def _ids(self, *columns: Any) -> AnySelect:
        return self.filtered_ids.with_only_columns(
            self.id.label("id"), *columns, maintain_column_froms=True
        )


_OFFSET: ColumnElement[Any] = bindparam("offset", type_=BigInteger)
_SCAN_LIMIT: ColumnElement[Any] = bindparam("scan_limit", type_=Integer)


def count_of(filtered_ids: AnySelect) -> AnySelect:
    """Return the query that counts the rows."""
    return filtered_ids.with_only_columns(func.count(), maintain_column_froms=True)


def _type(column: Any) -> TypeEngine[Any]:
    type_: TypeEngine[Any] = column.type
    return type_


def _ordered(key: Column, row_id: Column, descending: bool) -> list[ColumnElement[Any]]:
    return [column.desc() if descending else column.asc() for column in (key, row_id)]


def _behind(key: Column, row_id: Column, descending: bool) -> ColumnElement[bool]:
    """Return the condition for the rows after a position.

    Spelled out: MariaDB reads a row-value comparison (a, b) < (x, y) as a filter over the whole
    index.
    """
    last_key: ColumnElement[Any] = bindparam("last_key", type_=_type(key))
    last_id: ColumnElement[Any] = bindparam("last_id", type_=BigInteger)
    if descending:
        return and_(key <= last_key, or_(key < last_key, row_id < last_id))
    return and_(key >= last_key, or_(key > last_key, row_id > last_id))


def filters_of(query: PageQuery) -> dict[str, Any]:
    """Return the filters a query sets, by name, as the parameters of its statement; `sought`
    returns those of `q`."""
    parameters = {
        name: value for name in query.filters if (value := getattr(query, name)) is not None
    }
    parameters.pop("q", None)
    return parameters


def sought(query: Any) -> dict[str, Any]:
    """Return the parameters of what a query searches for; none if no word narrows anything."""
    words = search_words(query.q) if query.q else ()
    return search_parameters(words) if words else {}
