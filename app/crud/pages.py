"""Listings: a page by number with a count, or by cursor from where the last one ended.

The ids of a page are found first, from an index alone, and joined to what is shown: rows that
are skipped over are never read. What finding a page has taught (how many rows there are, where
a page begins) is remembered while nothing has changed, so that page 450 costs what page 1 does.
"""

from __future__ import annotations

import hmac
import time
from base64 import b64decode, urlsafe_b64encode
from collections.abc import Callable, Container, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from typing import Any, Generic, TypeVar

from pydantic_core import from_json, to_json
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

from app.core.exceptions import InvalidCursor
from app.models.base import UtcDateTime
from app.reading import Query, Reader, Values
from app.schemas.pages import PageQuery

T = TypeVar("T")
R = TypeVar("R")
U = TypeVar("U")
Column = Mapped[Any] | ColumnElement[Any]
AnySelect = Select[*tuple[Any, ...]]
_MAX_REMEMBERED = 1_000
_MAX_STARTS = 200
_MARK_BYTES = 16
# What other processes write is seen in the total, and in where later pages begin, after this
# long; on the first page, behind a cursor and in what a row holds, at once.
REMEMBER_SECONDS = 1.0


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


@dataclass(frozen=True)
class PageOf(Generic[T]):
    """One page of a listing; `schemas/pages.py` says what the fields mean."""

    items: list[T]
    total: int | None
    page: int | None
    page_size: int
    total_pages: int | None
    has_next: bool
    has_prev: bool
    next_cursor: str | None

    def of(self, convert: Callable[[T], U]) -> PageOf[U]:
        """The same page with its items converted."""
        items: list[Any] = [convert(item) for item in self.items]
        return replace(self, items=items)  # type: ignore[return-value]  # of U from here on


def page_of(
    query: PageQuery,
    found: Sequence[R],
    *,
    total: int | None,
    item: Callable[[R], T],
    position: Callable[[R], str],
) -> PageOf[T]:
    """The envelope around what was found: by cursor (no `total`) with one more than is shown."""
    shown = found[: query.page_size]
    pages = None if total is None else -(-total // query.page_size)
    has_next = len(found) > len(shown) if pages is None else query.page < pages
    return PageOf(
        items=[item(row) for row in shown],
        total=total,
        page=None if pages is None else query.page,
        page_size=query.page_size,
        total_pages=pages,
        has_next=has_next,
        has_prev=pages is None or query.page > 1,
        next_cursor=position(shown[-1]) if has_next and shown else None,
    )


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


class Cursors:
    """Opaque, tamper-evident positions in a listing (HMAC-SHA256 with a key of their own)."""

    def __init__(self, secret: str) -> None:
        self._key = hmac.digest(secret.encode(), b"cursor", "sha256")

    def dump(self, listing: str, sort: str, key: object, row_id: int) -> str:
        position = to_json([listing, sort, key, row_id])
        return urlsafe_b64encode(self._mark(position) + position).rstrip(b"=").decode()

    def load(self, listing: str, sorts: Container[str], query: PageQuery) -> tuple[str, Any, int]:
        """The sort, the key and the id a query's cursor stands at.

        InvalidCursor when it is not ours, or of another listing or another sort.
        """
        name, sort, key, row_id = from_json(self._verified(query.cursor or ""))
        if name != listing or sort.removeprefix("-") not in sorts:
            raise InvalidCursor
        if "sort" in query.model_fields_set and query.sort != sort:
            raise InvalidCursor
        return sort, key, row_id

    def _mark(self, position: bytes) -> bytes:
        return hmac.digest(self._key, position, "sha256")[:_MARK_BYTES]

    def _verified(self, cursor: str) -> bytes:
        try:
            padded = cursor + "=" * (-len(cursor) % 4)
            raw = b64decode(padded, altchars=b"-_", validate=True)
        except ValueError:
            raise InvalidCursor from None
        mark, position = raw[:_MARK_BYTES], raw[_MARK_BYTES:]
        if not hmac.compare_digest(mark, self._mark(position)):
            raise InvalidCursor
        return position


@dataclass(slots=True)
class _Remembered(Generic[R]):
    """Something found out, good while the version stays, for a while."""

    version: int
    until: float
    found: R


Starts = dict[tuple[int, int], tuple[Any, int]]


class Pages:
    """Finds pages of listings.

    Remembers for REMEMBER_SECONDS, unless this process writes meanwhile, how many rows a count
    has found and, by page size and number, the positions behind which pages begin.
    """

    def __init__(self, reader: Reader, cursors: Cursors) -> None:
        self.reader = reader
        self.cursors = cursors
        self._totals: dict[Hashable, _Remembered[int]] = {}
        self._starts: dict[Hashable, _Remembered[Starts]] = {}

    async def page(self, listing: Listing[T], query: PageQuery, given: dict[str, Any]) -> PageOf[T]:
        """The page a query asks for, with `given` as the values of the listing's filters."""
        if query.cursor is None:
            return await self._by_number(listing, query, given)
        sort, key, row_id = self.cursors.load(listing.name, listing.keys, query)
        found = await self._behind(
            listing, sort, (key, row_id), given | {"limit": query.page_size + 1}
        )
        return self._enveloped(listing, query, sort, found, None)

    async def _by_number(
        self, listing: Listing[T], query: PageQuery, given: dict[str, Any]
    ) -> PageOf[T]:
        number, size, sort = query.page, query.page_size, query.sort
        skipped = (number - 1) * size
        by_offset = given | {"limit": size, "offset": skipped}
        starts = self._starts_of(listing, sort, given)
        start = starts.get((size, number))
        total = await self._total(listing, given)
        if start is not None:
            found = await self._behind(listing, sort, start, given | {"limit": size})
        else:
            found = await self.reader.rows(listing.page(sort, after=False), by_offset)
        if len(found) != max(0, min(size, total - skipped)):
            # Another process has written: what is on the page never contradicts the total.
            starts.clear()
            total = await self._total(listing, given, anew=True)
            found = await self.reader.rows(listing.page(sort, after=False), by_offset)
        _learn(starts, found, size, number, descending=sort.startswith("-"))
        return self._enveloped(listing, query, sort, found, total)

    async def _behind(
        self,
        listing: Listing[T],
        sort: str,
        position: tuple[Any, int],
        given: dict[str, Any],
    ) -> Values:
        key, row_id = position
        if listing.is_moment(sort):
            key = datetime.fromisoformat(key)
        behind = {"last_key": key, "last_id": row_id}
        return await self.reader.rows(listing.page(sort, after=True), given | behind)

    def _starts_of(self, listing: Listing[T], sort: str, given: dict[str, Any]) -> Starts:
        query = listing.page(sort, after=False)
        name, version, now = (query, *given.items()), self.reader.version(query), time.monotonic()
        known = self._starts.get(name)
        if known is None or known.version != version or now >= known.until:
            known = _Remembered(version, now + REMEMBER_SECONDS, Starts())
            _keep(self._starts, name, known)
        return known.found

    async def _total(
        self, listing: Listing[T], given: dict[str, Any], *, anew: bool = False
    ) -> int:
        return sum([await self._count(query, given, anew) for query in listing.counts()])

    async def _count(self, query: Query, given: dict[str, Any], anew: bool) -> int:
        # By what the query really uses: a count that is the same for everybody is made once.
        name = query, self.reader.arguments(query, given)
        version, now = self.reader.version(query), time.monotonic()
        known = self._totals.get(name)
        if anew or known is None or known.version != version or now >= known.until:
            [(total,)] = await self.reader.rows(query, given)
            known = _Remembered(version, now + REMEMBER_SECONDS, int(total))
            _keep(self._totals, name, known)
        return known.found

    def _enveloped(
        self, listing: Listing[T], query: PageQuery, sort: str, found: Values, total: int | None
    ) -> PageOf[T]:
        def position(row: tuple[Any, ...]) -> str:
            return self.cursors.dump(listing.name, sort, row[-2], row[-1])

        return page_of(query, found, total=total, item=listing.item, position=position)


def _keep(memory: dict[Hashable, _Remembered[R]], name: Hashable, known: _Remembered[R]) -> None:
    if len(memory) >= _MAX_REMEMBERED:
        memory.clear()
    memory[name] = known


def _learn(starts: Starts, found: Values, size: int, number: int, *, descending: bool) -> None:
    """Remember where this page begins (behind its first row, taken as one id further), and where
    the next one does."""
    if not found:
        return
    if len(starts) >= _MAX_STARTS:
        starts.clear()
    first, last = found[0], found[-1]
    # The first page has no offset to be spared, and begins with what came last.
    if number > 1:
        starts[size, number] = first[-2], first[-1] + (1 if descending else -1)
    if len(found) == size:
        starts[size, number + 1] = last[-2], last[-1]
