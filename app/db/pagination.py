"""Listings: a page by number with a count, or by cursor from where the last one ended.

The ids of a page are found first, from an index alone, and then the rows of these ids: rows
that are skipped are never read. The total and the positions where pages begin are cached while
nothing has changed, so that page 450 costs what page 1 does.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Generic, TypeVar

from app.db.concurrency_limit import ConcurrencyLimit
from app.db.cursors import CursorSigner
from app.db.paginated_queries import PaginatedQuery
from app.db.queries import QueryRunner, Rows
from app.db.totals import CacheEntry, Total, Totals, put
from app.schemas.pages import PageQuery

T = TypeVar("T")
R = TypeVar("R")
U = TypeVar("U")
_MAX_STARTS = 200
# What a search finds is counted up to here; of common words, among so many rows.
MAX_COUNTED = 10_000
_COUNT_SCAN_LIMIT = 2 * MAX_COUNTED
# So many rows are tested before the index is used; or as many as the matches among the first ones
# let expect, and some more, up to a limit.
_SCAN_LIMIT, _MORE, _MAX_SCAN_LIMIT = 1_000, 1.5, 100_000
# With so many matches among these, the total is "at least"; otherwise the index counts them.
_COMMON = _COUNT_SCAN_LIMIT // 50
# A page with so many rows before it is expensive, unless where it begins is known.
DEEP = 10_000
# From here on, a page in the latter half of a listing is looked for from the end.
_FAR = 1_000


@dataclass(frozen=True)
class PageResult(Generic[T]):
    """One page of a listing; `schemas/pages.py` says what the fields mean."""

    items: list[T]
    total: int | None
    total_is_exact: bool | None
    page: int | None
    page_size: int
    total_pages: int | None
    has_next: bool
    has_prev: bool
    next_cursor: str | None

    def of(self, convert: Callable[[T], U]) -> PageResult[U]:
        """Return the same page with its items converted."""
        items: list[Any] = [convert(item) for item in self.items]
        return replace(self, items=items)  # type: ignore[return-value]  # of U from here on


def page_of(
    query: PageQuery,
    rows: Sequence[R],
    *,
    total: Total | None,
    item: Callable[[R], T],
    position: Callable[[R], str],
) -> PageResult[T]:
    """Return the page of these rows, which are one more than the page shows if there are more.

    Without a total for a page by cursor. Correct a total that is older than the rows.
    """
    shown = rows[: query.page_size]
    has_next = len(rows) > len(shown)
    if total is not None:
        total = total.reconciled_with_page(
            (query.page - 1) * query.page_size, len(rows), is_last=not has_next
        )
    pages = None if total is None else -(-total.rows // query.page_size)
    return PageResult(
        items=[item(row) for row in shown],
        total=None if total is None else total.rows,
        total_is_exact=None if total is None else total.is_exact,
        page=None if pages is None else query.page,
        page_size=query.page_size,
        total_pages=pages,
        has_next=has_next,
        has_prev=pages is None or query.page > 1,
        next_cursor=position(shown[-1]) if has_next and shown else None,
    )


Starts = dict[tuple[int, int], tuple[Any, int]]


class Paginator:
    """Finds pages of listings.

    Caches totals (`totals.py`); and by page size and number the positions behind which pages
    begin, for a second, while this process writes nothing.
    """

    def __init__(self, reader: QueryRunner, cursors: CursorSigner) -> None:
        self.reader = reader
        self.cursors = cursors
        self.totals = Totals(reader)
        self.expensive_queries = ConcurrencyLimit()
        self._starts: dict[Hashable, CacheEntry[Starts]] = {}

    async def paginate(
        self, listing: PaginatedQuery, query: PageQuery, parameters: dict[str, Any]
    ) -> PageResult[dict[str, Any]]:
        """Return the page a query asks for, with `parameters` as the values of the listing's
        filters.

        Raise Overloaded for what can be expensive (searches, pages far behind) while as many of
        these are under way as allowed.
        """
        is_by_number = query.cursor is None
        is_deep = is_by_number and (query.page - 1) * query.page_size >= DEEP
        find = self._numbered if is_by_number else self._behind_cursor
        if listing.search is None and not is_deep:
            return await find(listing, query, parameters)
        with self.expensive_queries.slot():
            return await find(listing, query, parameters)

    async def _behind_cursor(
        self, listing: PaginatedQuery, query: PageQuery, parameters: dict[str, Any]
    ) -> PageResult[dict[str, Any]]:
        sort, key, row_id = self.cursors.load(listing.name, listing.sort_columns, query)
        limited = parameters | {"limit": query.page_size + 1}
        rows, _ = await self._rows(listing, sort, limited, start=(key, row_id))
        return self._page_result(listing, query, sort, rows, None)

    async def _numbered(
        self, listing: PaginatedQuery, query: PageQuery, parameters: dict[str, Any]
    ) -> PageResult[dict[str, Any]]:
        number, size, sort = query.page, query.page_size, query.sort
        skipped = (number - 1) * size
        starts = self._starts_of(listing, sort, parameters)
        limited = parameters | {"limit": size + 1, "offset": skipped}
        start = starts.get((size, number))
        if listing.search is None and start is None and skipped >= _FAR:
            rows, is_common = await self._from_nearer_end(listing, sort, limited), False
        else:
            rows, is_common = await self._rows(listing, sort, limited, start=start)
        _cache_page_starts(starts, rows[:size], size, number, descending=sort.startswith("-"))
        total = await self._total(listing, parameters, is_common=is_common)
        if listing.search is None and not total.fits(skipped, len(rows), size):
            # Another process has written, or the count is one that is cached for long.
            starts.clear()
            rows, _ = await self._rows(listing, sort, limited, start=None)
            total = await self._total(listing, parameters, is_common=False, refresh=True)
        return self._page_result(listing, query, sort, rows, total)

    async def _from_nearer_end(
        self, listing: PaginatedQuery, sort: str, parameters: dict[str, Any]
    ) -> Rows:
        """Return the rows behind an offset; in the latter half, count the offset from the end.

        That needs a current total, and skips fewer rows.
        """
        total = (await self._total(listing, parameters, is_common=False)).rows
        if not all(self.totals.is_current(query, parameters) for query in listing.counts()):
            return (await self._rows(listing, sort, parameters, start=None))[0]
        rest = total - parameters["offset"]
        wanted = min(parameters["limit"], rest)
        if wanted <= 0 or rest > parameters["offset"]:
            return (await self._rows(listing, sort, parameters, start=None))[0]
        backwards = parameters | {"offset": rest - wanted, "limit": wanted}
        return await self.reader.rows(listing.page_from_end(sort), backwards)

    async def _rows(
        self,
        listing: PaginatedQuery,
        sort: str,
        parameters: dict[str, Any],
        *,
        start: tuple[Any, int] | None,
    ) -> tuple[Rows, bool]:
        """Return the rows behind a position or an offset; and whether a search is so common that
        they were found among the next rows of the listing."""
        after = start is not None
        if start is not None:
            key, row_id = start
            if listing.sorts_by_datetime(sort):
                key = datetime.fromisoformat(key)
            parameters = parameters | {"last_key": key, "last_id": row_id}
        if listing.search is not None:
            rows = await self._scanned_rows(listing, sort, parameters, after=after)
            if rows is not None:
                return rows, True
        return await self.reader.rows(listing.page(sort, after=after), parameters), False

    async def _scanned_rows(
        self, listing: PaginatedQuery, sort: str, parameters: dict[str, Any], *, after: bool
    ) -> Rows | None:
        """Return what a search finds among the next rows of the listing; None if that is too few
        for the page."""
        query, limit = listing.scanned_page(sort, after=after), parameters["limit"]
        skipped = 0 if after else parameters["offset"]
        had = None
        if skipped + limit <= _SCAN_LIMIT:
            rows = await self.reader.rows(query, parameters | {"scan_limit": _SCAN_LIMIT})
            if len(rows) == limit:
                return rows
            had = skipped + len(rows) if rows or not skipped else None
        if had is None:
            first = listing.scanned_count(sort)
            had, _ = await self.totals.count(first, parameters | {"scan_limit": _SCAN_LIMIT})
        # As many more as the first ones let expect.
        needed = int(_MORE * _SCAN_LIMIT * (skipped + limit) / max(had, 1))
        if not had or needed > _MAX_SCAN_LIMIT:
            return None
        rows = await self.reader.rows(query, parameters | {"scan_limit": needed})
        return rows if len(rows) == limit else None

    def _starts_of(self, listing: PaginatedQuery, sort: str, parameters: dict[str, Any]) -> Starts:
        query = listing.page(sort, after=False)
        cache_key, version = (query, *parameters.items()), self.reader.version(query)
        entry = self._starts.get(cache_key)
        if entry is None or not entry.holds(version):
            entry = CacheEntry.briefly(version, Starts())
            put(self._starts, cache_key, entry)
        return entry.value

    async def _total(
        self,
        listing: PaginatedQuery,
        parameters: dict[str, Any],
        *,
        is_common: bool,
        refresh: bool = False,
    ) -> Total:
        if listing.search is None:
            counts = [
                await self.totals.count(query, parameters, refresh=refresh)
                for query in listing.counts()
            ]
            return Total(sum(rows for (rows,) in counts))
        if is_common:
            parameters = parameters | {"scan_limit": _COUNT_SCAN_LIMIT}
            count, looked_at = await self.totals.count(listing.scanned_count(), parameters)
            is_exact = looked_at < _COUNT_SCAN_LIMIT
            if is_exact or count >= _COMMON:
                return Total(min(count, MAX_COUNTED), is_exact)
        (count,) = await self.totals.count(
            listing.bounded_count(), parameters | {"bound": MAX_COUNTED + 1}
        )
        return Total(min(count, MAX_COUNTED), count <= MAX_COUNTED)

    def _page_result(
        self,
        listing: PaginatedQuery,
        query: PageQuery,
        sort: str,
        rows: Rows,
        total: Total | None,
    ) -> PageResult[dict[str, Any]]:
        def position(row: tuple[Any, ...]) -> str:
            return self.cursors.dump(listing.name, sort, row[-2], row[-1])

        return page_of(
            query, rows, total=total, item=listing.projection.from_row, position=position
        )


def _cache_page_starts(
    starts: Starts, rows: Rows, size: int, number: int, *, descending: bool
) -> None:
    """Cache where this page begins (behind its first row, taken as one id further), and where
    the next one does."""
    if not rows:
        return
    if len(starts) >= _MAX_STARTS:
        starts.clear()
    first, last = rows[0], rows[-1]
    # The first page has no offset to be spared, and begins with what came last.
    if number > 1:
        starts[size, number] = first[-2], first[-1] + (1 if descending else -1)
    if len(rows) == size:
        starts[size, number + 1] = last[-2], last[-1]
