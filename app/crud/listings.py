"""How a resource is listed: its filters, its orders, and the statements that follow from them."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Generic, TypeVar

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Integer,
    Select,
    String,
    Subquery,
    and_,
    bindparam,
    func,
    or_,
)
from sqlalchemy.orm import Mapped
from sqlalchemy.types import TypeEngine

from app.models.base import UtcDateTime
from app.reading import Query
from app.schemas.pages import PageQuery

T = TypeVar("T")
Column = Mapped[Any] | ColumnElement[Any]
AnySelect = Select[*tuple[Any, ...]]


@dataclass(frozen=True, eq=False)
class Listing(Generic[T]):
    """How a resource is listed. Made once for each set of filters: their values are parameters.

    `matching` selects from the resource with its filters, columns and order left open, and
    `counted` the same in parts that do not overlap, if it is cheaper to count them apart; `id`
    breaks ties; `keys` maps each sort to the never-null column it orders by; `rows` selects
    what a page shows, given the page's ids as a subquery to join; `item` makes an item of what
    `rows` selects. `name` keeps the cursors of one listing out of another.
    """

    name: str
    matching: AnySelect
    id: Column
    keys: Mapping[str, Column]
    rows: Callable[[Subquery], AnySelect]
    item: Callable[[tuple[Any, ...]], T]
    include_deleted: bool = False
    counted: Sequence[AnySelect] = ()
    _queries: dict[Hashable, Query] = field(default_factory=dict)
    _moments: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        moments = {name for name, key in self.keys.items() if isinstance(_type(key), UtcDateTime)}
        self._moments.update(moments)

    def counts(self) -> list[Query]:
        """How many rows match: the sum of these."""
        parts = self.counted or (self.matching,)
        return [self._made(place, partial(_counting, part)) for place, part in enumerate(parts)]

    def page(self, sort: str, *, after: bool) -> Query:
        """The rows of a page, each ending with its sort key and its id: `limit` of them, behind
        the position `last_key`, `last_id` or behind the first `offset`."""
        return self._made((sort, after), lambda: self._paging(sort, after))

    def is_moment(self, sort: str) -> bool:
        """Whether a sort is by a moment, which is text outside the database."""
        return sort.removeprefix("-") in self._moments

    def _made(self, name: Hashable, make: Callable[[], AnySelect]) -> Query:
        if name not in self._queries:
            self._queries[name] = Query(make(), include_deleted=self.include_deleted)
        return self._queries[name]

    def _paging(self, sort: str, after: bool) -> AnySelect:
        key, descending = self.keys[sort.removeprefix("-")], sort.startswith("-")
        ids = self.matching.with_only_columns(
            self.id.label("id"), key.label("sort_key"), maintain_column_froms=True
        )
        if after:
            ids = ids.where(_behind(key, self.id, descending))
        else:
            ids = ids.offset(bindparam("offset", type_=BigInteger))
        ids = ids.order_by(*_ordered(key, self.id, descending))
        page = ids.limit(bindparam("limit", type_=Integer)).subquery("page")
        rows = self.rows(page).add_columns(page.c.sort_key, page.c.id)
        return rows.order_by(*_ordered(page.c.sort_key, page.c.id, descending))


def _counting(matching: AnySelect) -> AnySelect:
    return matching.with_only_columns(func.count(), maintain_column_froms=True)


def _type(column: Any) -> TypeEngine[Any]:
    found: TypeEngine[Any] = column.type
    return found


def _ordered(key: Column, row_id: Column, descending: bool) -> list[ColumnElement[Any]]:
    return [column.desc() if descending else column.asc() for column in (key, row_id)]


def _behind(key: Column, row_id: Column, descending: bool) -> ColumnElement[bool]:
    """The rows after a position. Spelled out: MariaDB reads a row-value comparison (a, b) < (x, y)
    as a filter over the whole index."""
    last_key: ColumnElement[Any] = bindparam("last_key", type_=_type(key))
    last_id: ColumnElement[Any] = bindparam("last_id", type_=BigInteger)
    if descending:
        return and_(key <= last_key, or_(key < last_key, row_id < last_id))
    return and_(key >= last_key, or_(key > last_key, row_id > last_id))


def filters_of(query: PageQuery) -> dict[str, Any]:
    """The filters a query sets, by name, as the parameters of the statement that uses them."""
    given = {name: value for name in query.filters if (value := getattr(query, name)) is not None}
    if given.get("q"):
        given["q"] = _pattern(given["q"])
    else:
        given.pop("q", None)
    return given


def contains(column: Column, parameter: str) -> ColumnElement[bool]:
    """Whether a column holds the text of a search, without case."""
    return column.ilike(bindparam(parameter, type_=String), escape="/")


def _pattern(search: str) -> str:
    for special in "/%_":
        search = search.replace(special, f"/{special}")
    return f"%{search}%"
