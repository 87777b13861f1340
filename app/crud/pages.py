"""Listings: a page by number with a count, or by cursor from where the last one ended.

The ids of a page are found first, from an index alone, and joined to what is shown: rows that
are skipped over are never read. What finding a page has taught (how many rows there are, where
a page begins) is remembered while nothing has changed, so that page 450 costs what page 1 does.
"""

from __future__ import annotations

import asyncio
import hmac
import time
from base64 import b64decode, urlsafe_b64encode
from collections.abc import Callable, Container, Hashable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Generic, TypeVar

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV
from pydantic_core import from_json, to_json

from app.core.exceptions import InvalidCursor
from app.core.keys import SecretKeys
from app.crud.listings import Listing
from app.crud.shares import Share
from app.reading import Query, Reader, Values
from app.schemas.pages import PageQuery

T = TypeVar("T")
R = TypeVar("R")
U = TypeVar("U")
_MAX_REMEMBERED = 1_000
_MAX_STARTS = 200
_PADDED_TO = 64
# What other processes write is seen in the total, and in where later pages begin, after this
# long; on the first page, behind a cursor and in what a row holds, at once.
REMEMBER_SECONDS = 1.0
# A count that takes longer than this is remembered while others write, and for so long that
# counting takes at most this share of the time.
_DEAR_SECONDS = 0.05
_COUNTING_SHARE = 0.05
MAX_REMEMBER_SECONDS = 60.0
# What a search finds is counted up to here; of common words, among so many rows.
MAX_COUNTED = 10_000
_WALKED_COUNTING = 2 * MAX_COUNTED
# So many rows are looked at before the index is asked: at least, for each that is wanted, at most.
_WALKED, _WALKED_EACH, _MAX_WALKED = 1_000, 4, 40_000


@dataclass(frozen=True)
class Total:
    """How many rows a listing has: as many as `rows`, or at least, if it is not exact."""

    rows: int
    is_exact: bool = True

    def fits(self, skipped: int, found: int, size: int) -> bool:
        """Whether so many rows behind those that are skipped, up to one more than a page of this
        size has, are what this total says there are."""
        return found == max(0, min(size + 1, self.rows - skipped))

    def beside(self, skipped: int, found: int, *, is_last: bool) -> Total:
        """Return the total that goes with a page on which so many rows were found, one more than
        are shown unless it `is_last`: what was counted may be older."""
        if not is_last:
            return self if self.rows >= skipped + found else Total(skipped + found, False)
        if found or not skipped:
            return Total(skipped + found)
        return self if self.rows <= skipped else Total(skipped, self.is_exact)


@dataclass(frozen=True)
class PageOf(Generic[T]):
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

    def of(self, convert: Callable[[T], U]) -> PageOf[U]:
        """The same page with its items converted."""
        items: list[Any] = [convert(item) for item in self.items]
        return replace(self, items=items)  # type: ignore[return-value]  # of U from here on


def page_of(
    query: PageQuery,
    found: Sequence[R],
    *,
    total: Total | None,
    item: Callable[[R], T],
    position: Callable[[R], str],
) -> PageOf[T]:
    """The envelope around what was found, with one more than is shown; by cursor without a
    total. A total that is older than what was found is set right."""
    shown = found[: query.page_size]
    has_next = len(found) > len(shown)
    if total is not None:
        total = total.beside((query.page - 1) * query.page_size, len(found), is_last=not has_next)
    pages = None if total is None else -(-total.rows // query.page_size)
    return PageOf(
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


class Cursors:
    """Positions in a listing, encrypted: AES-SIV (RFC 5297) with keys of their own.

    Equal positions make equal cursors, so that a page that is read again is the same to the byte.
    Lengths are rounded up: they tell next to nothing of a title or an address.
    """

    def __init__(self, keys: SecretKeys) -> None:
        self._newest, *self._older = [_cipher(secret) for _, secret in keys.items()]

    def dump(self, listing: str, sort: str, key: object, row_id: int) -> str:
        """Return the cursor of a position."""
        position = to_json([sort, key, row_id])
        padded = position.ljust(-(-len(position) // _PADDED_TO) * _PADDED_TO)
        return _as_text(self._newest.encrypt(padded, [listing.encode()]))

    def load(self, listing: str, sorts: Container[str], query: PageQuery) -> tuple[str, Any, int]:
        """Return the sort, the key and the id a query's cursor stands at.

        Raise InvalidCursor when it is not ours, or of another listing or another sort.
        """
        sort, key, row_id = from_json(self._decrypted(query.cursor or "", listing.encode()))
        if sort.removeprefix("-") not in sorts:
            raise InvalidCursor
        if "sort" in query.model_fields_set and query.sort != sort:
            raise InvalidCursor
        return sort, key, row_id

    def _decrypted(self, cursor: str, listing: bytes) -> bytes:
        try:
            raw = b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        except ValueError:
            raise InvalidCursor from None
        # Several texts stand for the same bytes: one of them is ours.
        if _as_text(raw) == cursor:
            for cipher in (self._newest, *self._older):
                with suppress(InvalidTag):
                    return cipher.decrypt(raw, [listing])
        raise InvalidCursor


def _cipher(secret: str) -> AESSIV:
    return AESSIV(hmac.digest(secret.encode(), b"cursor encryption", "sha512"))


def _as_text(raw: bytes) -> str:
    return urlsafe_b64encode(raw).rstrip(b"=").decode()


@dataclass(slots=True)
class _Remembered(Generic[R]):
    """Something found out, good while the version stays, for a while; after a statement that
    took long, for longer, whatever the version."""

    version: int
    until: float
    found: R
    is_dear: bool = False

    def holds(self, version: int) -> bool:
        return time.monotonic() < self.until and (self.is_dear or self.version == version)


@dataclass(slots=True)
class _Counting:
    """A count under way, and how many wait for it."""

    task: asyncio.Task[tuple[int, ...]]
    waiting: int = 0


Starts = dict[tuple[int, int], tuple[Any, int]]


class Pages:
    """Finds pages of listings.

    Remembers how many rows a count has found, for REMEMBER_SECONDS unless this process writes
    meanwhile, or for so long that counting takes no more than a twentieth of the time; and by page
    size and number the positions behind which pages begin. Who asks what is being counted waits
    for that.
    """

    def __init__(self, reader: Reader, cursors: Cursors) -> None:
        self.reader = reader
        self.cursors = cursors
        self.searches = Share()
        self._totals: dict[Hashable, _Remembered[tuple[int, ...]]] = {}
        self._counting: dict[Hashable, _Counting] = {}
        self._starts: dict[Hashable, _Remembered[Starts]] = {}

    async def page(self, listing: Listing[T], query: PageQuery, given: dict[str, Any]) -> PageOf[T]:
        """The page a query asks for, with `given` as the values of the listing's filters.

        Raises Overloaded for a search while as many are under way as there may be.
        """
        if listing.search is None:
            return await self._page(listing, query, given)
        with self.searches.taken():
            return await self._page(listing, query, given)

    async def _page(
        self, listing: Listing[T], query: PageQuery, given: dict[str, Any]
    ) -> PageOf[T]:
        limited = given | {"limit": query.page_size + 1}
        if query.cursor is not None:
            sort, key, row_id = self.cursors.load(listing.name, listing.keys, query)
            found, _ = await self._rows(listing, sort, limited, start=(key, row_id))
            return self._enveloped(listing, query, sort, found, None)
        number, size, sort = query.page, query.page_size, query.sort
        starts = self._starts_of(listing, sort, given)
        limited["offset"] = (number - 1) * size
        start = starts.get((size, number))
        found, is_common = await self._rows(listing, sort, limited, start=start)
        _learn(starts, found[:size], size, number, descending=sort.startswith("-"))
        total = await self._total(listing, given, is_common=is_common)
        if listing.search is None and not total.fits(limited["offset"], len(found), size):
            # Another process has written, or the count is one that is remembered for long.
            starts.clear()
            found, _ = await self._rows(listing, sort, limited, start=None)
            total = await self._total(listing, given, is_common=False, anew=True)
        return self._enveloped(listing, query, sort, found, total)

    async def _rows(
        self,
        listing: Listing[T],
        sort: str,
        given: dict[str, Any],
        *,
        start: tuple[Any, int] | None,
    ) -> tuple[Values, bool]:
        """The rows behind a position, or behind an offset; and of a search, whether what it finds
        is so common that they were among the next rows of the listing."""
        after = start is not None
        if start is not None:
            key, row_id = start
            if listing.is_moment(sort):
                key = datetime.fromisoformat(key)
            given = given | {"last_key": key, "last_id": row_id}
        if listing.search is not None:
            skipped = 0 if after else given["offset"]
            walked = min(max(_WALKED, _WALKED_EACH * (skipped + given["limit"])), _MAX_WALKED)
            query = listing.walked_page(sort, after=after)
            found = await self.reader.rows(query, given | {"walked": walked})
            if len(found) == given["limit"]:
                return found, True
        return await self.reader.rows(listing.page(sort, after=after), given), False

    def _starts_of(self, listing: Listing[T], sort: str, given: dict[str, Any]) -> Starts:
        query = listing.page(sort, after=False)
        name, version = (query, *given.items()), self.reader.version(query)
        known = self._starts.get(name)
        if known is None or not known.holds(version):
            known = _Remembered(version, time.monotonic() + REMEMBER_SECONDS, Starts())
            _keep(self._starts, name, known)
        return known.found

    async def _total(
        self,
        listing: Listing[T],
        given: dict[str, Any],
        *,
        is_common: bool,
        anew: bool = False,
    ) -> Total:
        if listing.search is None:
            counts = [await self.counted(query, given, anew=anew) for query in listing.counts()]
            return Total(sum(rows for (rows,) in counts))
        if is_common:
            given = given | {"walked": _WALKED_COUNTING}
            found, looked_at = await self.counted(listing.walked_count(), given)
            return Total(min(found, MAX_COUNTED), looked_at < _WALKED_COUNTING)
        (found,) = await self.counted(listing.bounded_count(), given | {"bound": MAX_COUNTED + 1})
        return Total(min(found, MAX_COUNTED), found <= MAX_COUNTED)

    async def counted(
        self, query: Query, given: dict[str, Any], *, anew: bool = False
    ) -> tuple[int, ...]:
        """The one row of a query that counts, as it is remembered; `anew` unless it takes long."""
        # By what the query really uses: a count that is the same for everybody is made once.
        name = query, self.reader.arguments(query, given)
        known = self._totals.get(name)
        is_known = known is not None and known.holds(self.reader.version(query))
        if known is not None and is_known and (known.is_dear or not anew):
            return known.found
        counting = self._counting.get(name)
        if counting is None:
            task = asyncio.create_task(self._find_out(name, query, given))
            counting = self._counting[name] = _Counting(task)
        return await self._shared(name, counting)

    async def _shared(self, name: Hashable, counting: _Counting) -> tuple[int, ...]:
        """Wait for a count; it ends with the last who waits for it."""
        counting.waiting += 1
        try:
            return await asyncio.shield(counting.task)
        finally:
            counting.waiting -= 1
            if not counting.waiting:
                counting.task.cancel()
                self._counting.pop(name, None)

    async def _find_out(
        self, name: Hashable, query: Query, given: dict[str, Any]
    ) -> tuple[int, ...]:
        version, began = self.reader.version(query), time.monotonic()
        [row] = await self.reader.rows(query, given)
        found = tuple(map(int, row))
        now = time.monotonic()
        is_dear = now - began > _DEAR_SECONDS
        dear = min((now - began) / _COUNTING_SHARE, MAX_REMEMBER_SECONDS)
        kept = _Remembered(version, now + (dear if is_dear else REMEMBER_SECONDS), found, is_dear)
        _keep(self._totals, name, kept)
        return found

    def _enveloped(
        self, listing: Listing[T], query: PageQuery, sort: str, found: Values, total: Total | None
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
