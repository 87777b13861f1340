"""Listings: a page by number with a count, or by cursor from where the last one ended.

The ids of a page are found first, from an index alone, and joined to what is shown: rows that
are skipped over are never read. What finding a page has taught (how many rows there are, where
a page begins) is remembered while nothing has changed, so that page 450 costs what page 1 does.
"""

from __future__ import annotations

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
