"""What every noun's module needs: one row or 404, a flush that tells conflicts apart, pages."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Generic, TypeVar

from itsdangerous import BadData, URLSafeSerializer
from sqlalchemy import ColumnElement, Row, Select, Subquery, and_, func, or_
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped

from app.core.exceptions import AppError, InvalidCursor, NotFound
from app.models.base import INCLUDE_DELETED
from app.schemas.pages import PageQuery

T = TypeVar("T")
R = TypeVar("R")
U = TypeVar("U")
Column = Mapped[Any] | ColumnElement[Any]
AnySelect = Select[*tuple[Any, ...]]
AnyRow = Row[*tuple[Any, ...]]


async def one_or_404(session: AsyncSession, statement: Select[T]) -> T:
    """The only row of a statement, or NotFound: the same answer for unknown and invisible."""
    found = (await session.execute(statement)).scalar_one_or_none()
    if found is None:
        raise NotFound
    return found


async def flush_or_conflict(session: AsyncSession, conflicts: Mapping[str, type[AppError]]) -> None:
    """Write what is pending; a violated constraint named in `conflicts` raises its error.

    The database is asked, not looked at before: a look would miss concurrent writers.
    """
    try:
        await session.flush()
    except IntegrityError as error:
        text = str(error.orig)
        for constraint, conflict in conflicts.items():
            # SQLite names the column of a violated constraint, the others the constraint.
            table, _, column = constraint.removeprefix("uq_").partition("_")
            if constraint in text or f"{table}.{column}" in text:
                raise conflict from None
        raise


async def flush_out(session: AsyncSession, row: object) -> None:
    """Write that a row went to the trash, and forget it: the session would go on finding it."""
    await session.flush()
    session.expunge(row)


async def add_if_missing(session: AsyncSession, row: object) -> bool:
    """Insert a row unless its key is taken already, also by somebody doing so right now."""
    try:
        async with session.begin_nested():
            session.add(row)
    except IntegrityError:
        return False
    return True


@dataclass(frozen=True)
class Listing(Generic[T]):
    """How a resource is listed.

    `matching` selects from the resource with its filters, columns and order left open; `id`
    breaks ties; `keys` maps each sort to the never-null column it orders by; `rows` selects
    what a page shows, given the page's ids as a subquery to join; `item` makes an item of a
    result row. `name` keeps the cursors of one listing out of another.
    """

    name: str
    matching: AnySelect
    id: Column
    keys: Mapping[str, Column]
    rows: Callable[[Subquery], AnySelect]
    item: Callable[[AnyRow], T]
    include_deleted: bool = False


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


class Cursors:
    """Opaque, tamper-evident positions in a listing (signed with the secret key)."""

    def __init__(self, secret: str) -> None:
        self._serializer = URLSafeSerializer(secret, salt="cursor")

    def dump(self, listing: str, sort: str, key: object, row_id: int) -> str:
        moment = isinstance(key, datetime)
        value = key.isoformat() if isinstance(key, datetime) else key
        return str(self._serializer.dumps([listing, sort, moment, value, row_id]))

    def load(self, listing: str, sorts: Container[str], query: PageQuery) -> tuple[str, Any, int]:
        """The sort, the key and the id a query's cursor stands at.

        InvalidCursor when it is not ours, or of another listing or another sort.
        """
        try:
            name, sort, moment, value, row_id = self._serializer.loads(query.cursor or "")
        except BadData:
            raise InvalidCursor from None
        if name != listing or sort.removeprefix("-") not in sorts:
            raise InvalidCursor
        if "sort" in query.model_fields_set and query.sort != sort:
            raise InvalidCursor
        return sort, datetime.fromisoformat(value) if moment else value, row_id


async def paginate(
    session: AsyncSession, listing: Listing[T], query: PageQuery, cursors: Cursors
) -> PageOf[T]:
    """The page a query asks for: by number with a count, by cursor from where the last ended.

    The ids of the page are found first, from an index alone, and joined to what is shown:
    rows that are skipped over are never read.
    """
    if query.cursor is not None:
        sort, *after = cursors.load(listing.name, listing.keys, query)
        limit = query.page_size + 1
        found = await _rows(session, listing, sort, limit=limit, after=(after[0], after[1]))
        total = None
    else:
        sort, skipped = query.sort, (query.page - 1) * query.page_size
        total = await _count(session, listing)
        found = await _rows(session, listing, sort, limit=query.page_size, offset=skipped)

    def position(row: AnyRow) -> str:
        return cursors.dump(listing.name, sort, row.sort_key, row.id)

    return page_of(query, found, total=total, item=listing.item, position=position)


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


async def _count(session: AsyncSession, listing: Listing[T]) -> int:
    statement = listing.matching.with_only_columns(func.count(), maintain_column_froms=True)
    result = await session.execute(statement, execution_options=_options(listing))
    return int(result.scalar_one())


async def _rows(
    session: AsyncSession,
    listing: Listing[T],
    sort: str,
    *,
    limit: int,
    offset: int = 0,
    after: tuple[object, int] | None = None,
) -> Sequence[AnyRow]:
    key, descending = listing.keys[sort.removeprefix("-")], sort.startswith("-")
    ids = listing.matching.with_only_columns(
        listing.id.label("id"), key.label("sort_key"), maintain_column_froms=True
    )
    if after:
        ids = ids.where(_behind(key, listing.id, *after, descending=descending))
    ids = ids.order_by(*_ordered(key, listing.id, descending)).limit(limit).offset(offset)
    page = ids.subquery("page")
    rows = listing.rows(page).add_columns(page.c.sort_key, page.c.id)
    rows = rows.order_by(*_ordered(page.c.sort_key, page.c.id, descending))
    return (await session.execute(rows, execution_options=_options(listing))).all()


def _options(listing: Listing[Any]) -> dict[str, bool]:
    return {INCLUDE_DELETED: listing.include_deleted}


def _ordered(key: Column, row_id: Column, descending: bool) -> list[ColumnElement[Any]]:
    return [column.desc() if descending else column.asc() for column in (key, row_id)]


def _behind(
    key: Column, row_id: Column, last_key: object, last_id: int, *, descending: bool
) -> ColumnElement[bool]:
    """The rows after a position. Spelled out: MariaDB reads a row-value comparison (a, b) < (x, y)
    as a filter over the whole index."""
    if descending:
        return and_(key <= last_key, or_(key < last_key, row_id < last_id))
    return and_(key >= last_key, or_(key > last_key, row_id > last_id))
