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

from app.db.cursors import CursorSigner
from app.db.paginated_queries import PaginatedQuery
from app.db.queries import QueryRunner, Values
from app.db.shares import Share
from app.db.totals import Remembered, Total, Totals, keep
from app.schemas.pages import PageQuery

T = TypeVar("T")
R = TypeVar("R")
U = TypeVar("U")
_MAX_STARTS = 200
# What a search finds is counted up to here; of common words, among so many rows.
MAX_COUNTED = 10_000
_WALKED_COUNTING = 2 * MAX_COUNTED
# So many rows are tested before the index is used; or as many as the matches among the first ones
# let expect, and some more, up to a limit.
_WALKED, _MORE, _MAX_WALKED = 1_000, 1.5, 100_000
# With so many matches among these, the total is "at least"; otherwise the index counts them.
_COMMON = _WALKED_COUNTING // 50
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
    found: Sequence[R],
    *,
    total: Total | None,
    item: Callable[[R], T],
    position: Callable[[R], str],
) -> PageResult[T]:
    """Return the page of the rows found, which are one more than the page shows if there are more.

    Without a total for a page by cursor. Correct a total that is older than the rows.
    """
    shown = found[: query.page_size]
    has_next = len(found) > len(shown)
    if total is not None:
        total = total.beside((query.page - 1) * query.page_size, len(found), is_last=not has_next)
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

    Remembers totals (`totals.py`); and by page size and number the positions behind which pages
    begin, for a second, while this process writes nothing.
    """

    def __init__(self, reader: QueryRunner, cursors: CursorSigner) -> None:
        self.reader = reader
        self.cursors = cursors
        self.totals = Totals(reader)
        self.expensive = Share()
        self._starts: dict[Hashable, Remembered[Starts]] = {}

    async def paginate(
        self, listing: PaginatedQuery, query: PageQuery, given: dict[str, Any]
    ) -> PageResult[dict[str, Any]]:
        """Return the page a query asks for, with `given` as the values of the listing's filters.

        Raise Overloaded for what can be expensive (searches, pages far behind) while as many of
        these are under way as allowed.
        """
        is_by_number = query.cursor is None
        is_deep = is_by_number and (query.page - 1) * query.page_size >= DEEP
        find = self._numbered if is_by_number else self._behind_cursor
        if listing.search is None and not is_deep:
            return await find(listing, query, given)
        with self.expensive.taken():
            return await find(listing, query, given)

    async def _behind_cursor(
        self, listing: PaginatedQuery, query: PageQuery, given: dict[str, Any]
    ) -> PageResult[dict[str, Any]]:
        sort, key, row_id = self.cursors.load(listing.name, listing.keys, query)
        limited = given | {"limit": query.page_size + 1}
        found, _ = await self._rows(listing, sort, limited, start=(key, row_id))
        return self._enveloped(listing, query, sort, found, None)

    async def _numbered(
        self, listing: PaginatedQuery, query: PageQuery, given: dict[str, Any]
    ) -> PageResult[dict[str, Any]]:
        number, size, sort = query.page, query.page_size, query.sort
        skipped = (number - 1) * size
        starts = self._starts_of(listing, sort, given)
        limited = given | {"limit": size + 1, "offset": skipped}
        start = starts.get((size, number))
        if listing.search is None and start is None and skipped >= _FAR:
            found, is_common = await self._from_nearer_end(listing, sort, limited), False
        else:
            found, is_common = await self._rows(listing, sort, limited, start=start)
        _learn(starts, found[:size], size, number, descending=sort.startswith("-"))
        total = await self._total(listing, given, is_common=is_common)
        if listing.search is None and not total.fits(skipped, len(found), size):
            # Another process has written, or the count is one that is remembered for long.
            starts.clear()
            found, _ = await self._rows(listing, sort, limited, start=None)
            total = await self._total(listing, given, is_common=False, anew=True)
        return self._enveloped(listing, query, sort, found, total)

    async def _from_nearer_end(
        self, listing: PaginatedQuery, sort: str, given: dict[str, Any]
    ) -> Values:
        """Return the rows behind an offset; in the latter half, count the offset from the end.

        That needs a current total, and skips fewer rows.
        """
        total = (await self._total(listing, given, is_common=False)).rows
        if not all(self.totals.is_current(query, given) for query in listing.counts()):
            return (await self._rows(listing, sort, given, start=None))[0]
        rest = total - given["offset"]
        wanted = min(given["limit"], rest)
        if wanted <= 0 or rest > given["offset"]:
            return (await self._rows(listing, sort, given, start=None))[0]
        backwards = given | {"offset": rest - wanted, "limit": wanted}
        return await self.reader.rows(listing.page_from_end(sort), backwards)

    async def _rows(
        self,
        listing: PaginatedQuery,
        sort: str,
        given: dict[str, Any],
        *,
        start: tuple[Any, int] | None,
    ) -> tuple[Values, bool]:
        """Return the rows behind a position or an offset; and whether a search is so common that
        they were found among the next rows of the listing."""
        after = start is not None
        if start is not None:
            key, row_id = start
            if listing.is_moment(sort):
                key = datetime.fromisoformat(key)
            given = given | {"last_key": key, "last_id": row_id}
        if listing.search is not None:
            found = await self._walked(listing, sort, given, after=after)
            if found is not None:
                return found, True
        return await self.reader.rows(listing.page(sort, after=after), given), False

    async def _walked(
        self, listing: PaginatedQuery, sort: str, given: dict[str, Any], *, after: bool
    ) -> Values | None:
        """Return what a search finds among the next rows of the listing; None if that is too few
        for the page."""
        query, limit = listing.walked_page(sort, after=after), given["limit"]
        skipped = 0 if after else given["offset"]
        had = None
        if skipped + limit <= _WALKED:
            found = await self.reader.rows(query, given | {"walked": _WALKED})
            if len(found) == limit:
                return found
            had = skipped + len(found) if found or not skipped else None
        if had is None:
            first = listing.walked_count(sort)
            had, _ = await self.totals.counted(first, given | {"walked": _WALKED})
        # As many more as the first ones let expect.
        needed = int(_MORE * _WALKED * (skipped + limit) / max(had, 1))
        if not had or needed > _MAX_WALKED:
            return None
        found = await self.reader.rows(query, given | {"walked": needed})
        return found if len(found) == limit else None

    def _starts_of(self, listing: PaginatedQuery, sort: str, given: dict[str, Any]) -> Starts:
        query = listing.page(sort, after=False)
        name, version = (query, *given.items()), self.reader.version(query)
        known = self._starts.get(name)
        if known is None or not known.holds(version):
            known = Remembered.briefly(version, Starts())
            keep(self._starts, name, known)
        return known.found

    async def _total(
        self,
        listing: PaginatedQuery,
        given: dict[str, Any],
        *,
        is_common: bool,
        anew: bool = False,
    ) -> Total:
        counted = self.totals.counted
        if listing.search is None:
            counts = [await counted(query, given, anew=anew) for query in listing.counts()]
            return Total(sum(rows for (rows,) in counts))
        if is_common:
            given = given | {"walked": _WALKED_COUNTING}
            found, looked_at = await counted(listing.walked_count(), given)
            is_exact = looked_at < _WALKED_COUNTING
            if is_exact or found >= _COMMON:
                return Total(min(found, MAX_COUNTED), is_exact)
        (found,) = await counted(listing.bounded_count(), given | {"bound": MAX_COUNTED + 1})
        return Total(min(found, MAX_COUNTED), found <= MAX_COUNTED)

    def _enveloped(
        self,
        listing: PaginatedQuery,
        query: PageQuery,
        sort: str,
        found: Values,
        total: Total | None,
    ) -> PageResult[dict[str, Any]]:
        def position(row: tuple[Any, ...]) -> str:
            return self.cursors.dump(listing.name, sort, row[-2], row[-1])

        return page_of(query, found, total=total, item=listing.projection.item, position=position)


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
