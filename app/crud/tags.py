"""Tags: created when a post first uses them, with the number of published posts that have each.

`Tag.post_count` is stored: each change of a post that affects it updates it in the same
transaction, by `lock_and_adjust_counts` or `adjust_locked_counts`
(docs/adr/0029-counts-of-tags.md). Tags are locked after posts, by ascending id.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import cache, partial
from typing import Any

from sqlalchemy import BigInteger, Integer, bindparam, case, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.words import index_words
from app.db.paginated_queries import PaginatedQuery, sought
from app.db.pagination import PageResult, Paginator
from app.db.projections import Projection
from app.db.queries import PreparedQuery
from app.db.search import Search
from app.db.statements import PreparedWrite
from app.db.transactions import Transaction, session_transaction
from app.db.write_counters import WriteKind
from app.models.posts import Post, PostStatus
from app.models.search import TagSearch
from app.models.tags import MAX_TAGS, PostTag, Tag
from app.schemas import tags as schemas

# How many tags a statement has room for: those of most posts, of any, a part of an author's.
_FEW, _MANY = 4, 500
_PAGE = 5_000


def get_or_create(
    transaction: Transaction,
    *,
    names: list[str],
    will_change_counts: bool,
    also_lock_ids: Collection[int] = (),
) -> list[int]:
    """Return the ids of the tags with these (normalised) names; create the missing ones.

    Lock them until the end of the transaction, so that none is purged as unused before the post
    is linked to it; `will_change_counts` says whether their counts will change. `also_lock_ids` are
    ids of tags whose counts will change too: all are locked at once, in the order of all locks.
    """
    if not names:
        return []
    inserted: set[str] = set()
    while True:
        width = _room_for(names)
        parameters = _padded("name", names, width)
        ids_by_name = {name: id_ for id_, name in transaction.rows(_named(width), **parameters)}
        # Before any lock on a committed tag, and in one order: two transactions that create tags
        # cannot deadlock.
        missing = sorted(set(names) - ids_by_name.keys())
        for name in missing:
            transaction.insert_if_missing(Tag, name=name)
        inserted.update(missing)
        # Read again after an insert, or after a purge between the read and the lock.
        locked_ids = {*ids_by_name.values(), *also_lock_ids}
        if not missing and _lock(transaction, locked_ids, will_change_counts=will_change_counts):
            for name in sorted(inserted):
                transaction.insert_if_missing(
                    TagSearch, id=ids_by_name[name], words=index_words(name)
                )
            return list(ids_by_name.values())


def link(transaction: Transaction, *, post_id: int, tag_ids: Collection[int]) -> None:
    """Link a (locked) post to tags, at most MAX_TAGS."""
    width = _room_for(tag_ids)
    transaction.execute_write(
        _linking(width), post_id=post_id, **_padded("id", sorted(tag_ids), width)
    )


def lock_and_adjust_counts(transaction: Transaction, changes: Mapping[int, int]) -> None:
    """Lock tags, and add to the count of each the value that `changes` maps its id to."""
    _lock(transaction, changes, will_change_counts=True)
    adjust_locked_counts(transaction, changes)


def adjust_locked_counts(transaction: Transaction, changes: Mapping[int, int]) -> None:
    """Add to the counts of tags that this transaction has locked."""
    ids_by_delta = defaultdict(list)
    for tag_id, delta in changes.items():
        ids_by_delta[delta].append(tag_id)
    for delta, ids in ids_by_delta.items():
        for part in _parts(ids):
            width = _room_for(part)
            transaction.execute_write(_adding(width), delta=delta, **_padded("id", part, width))


def _lock(transaction: Transaction, ids: Iterable[int], *, will_change_counts: bool) -> bool:
    """Lock tags by ascending id; return whether all of them exist."""
    are_there = True
    for part in _parts(ids):
        width = _room_for(part)
        found = transaction.rows(_locking(width, will_change_counts), **_padded("id", part, width))
        are_there &= len(found) == len(part)
    return are_there


def _parts(ids: Iterable[int]) -> Iterator[list[int]]:
    """Yield the ids, ascending, in parts of at most _MANY."""
    ordered = sorted(ids)
    for start in range(0, len(ordered), _MANY):
        yield ordered[start : start + _MANY]


def _room_for(values: Collection[Any]) -> int:
    """Return the width of the smallest prepared statement that has room for the values."""
    return next(width for width in (_FEW, MAX_TAGS, _MANY) if len(values) <= width)


def _padded(name: str, values: list[Any], width: int) -> dict[str, Any]:
    """Return parameters for a list of a fixed length; the last value fills the free places."""
    return {f"{name}_{n}": values[min(n, len(values) - 1)] for n in range(width)}


def _ids(width: int) -> list[Any]:
    return [bindparam(f"id_{n}", type_=BigInteger) for n in range(width)]


@cache
def _named(width: int) -> PreparedQuery:
    names: list[Any] = [bindparam(f"name_{n}") for n in range(width)]
    return PreparedQuery(select(Tag.id, Tag.name).where(Tag.name.in_(names)))


@cache
def _linking(width: int) -> PreparedWrite:
    post_id = bindparam("post_id", type_=BigInteger)
    rows = select(post_id, Tag.id).where(Tag.id.in_(_ids(width)))
    return PreparedWrite(insert(PostTag).from_select(["post_id", "tag_id"], rows), WriteKind.insert)


@cache
def _locking(width: int, will_change_counts: bool) -> PreparedQuery:
    """Return the query that locks tags for a change of their counts, or only against deletion.

    On MariaDB by the primary key, whatever the planner prefers for a small table: rows are locked
    in the order of the index that is read.
    """
    statement = select(Tag.id).where(Tag.id.in_(_ids(width))).order_by(Tag.id)
    statement = statement.with_hint(Tag, "FORCE INDEX (PRIMARY)", "mysql")
    return PreparedQuery(statement.with_for_update(read=not will_change_counts, key_share=True))


@cache
def _adding(width: int) -> PreparedWrite:
    # Never below zero: processes of the version before do not count, while they still serve.
    total = Tag.post_count + bindparam("delta", type_=Integer)
    statement = update(Tag).where(Tag.id.in_(_ids(width)))
    return PreparedWrite(
        statement.values(post_count=case((total < 0, 0), else_=total)), WriteKind.change
    )


# --- An author's posts, all at once --------------------------------------------------------------

_WITH_AUTHOR = PreparedQuery(
    select(PostTag.tag_id, func.count())
    .join(Post, Post.id == PostTag.post_id)
    .where(
        Post.author_id == bindparam("user_id", type_=BigInteger),
        Post.deleted_with_author,
        Post.status == PostStatus.published,
        PostTag.tag_id > bindparam("after", type_=BigInteger),
    )
    .group_by(PostTag.tag_id)
    .order_by(PostTag.tag_id)
    .limit(_PAGE),
    include_deleted=True,
)


async def adjust_counts_of_author(session: AsyncSession, *, user_id: int, delta: int) -> None:
    """Add `delta` to the count of each tag, for each published post that is in the trash with its
    author.

    This transaction has locked the author: no other one changes those posts meanwhile.
    """
    await session_transaction(
        session, partial(_adjust_counts_of_author, user_id=user_id, delta=delta)
    )


def _adjust_counts_of_author(transaction: Transaction, user_id: int, delta: int) -> None:
    after = 0
    while found := transaction.rows(_WITH_AUTHOR, user_id=user_id, after=after):
        lock_and_adjust_counts(transaction, {tag_id: delta * posts for tag_id, posts in found})
        after = found[-1][0]


# --- List ----------------------------------------------------------------------------------------


async def list_tags(paginator: Paginator, *, query: schemas.TagQuery) -> PageResult[dict[str, Any]]:
    """Return a page of the tags of published posts; a tag that only drafts have is left out."""
    words = sought(query)
    return await paginator.paginate(_listing(is_search=bool(words)), query, words)


_PROJECTION = Projection(schemas.TagCount, Tag)


@cache
def _listing(*, is_search: bool) -> PaginatedQuery:
    return PaginatedQuery(
        name="tags",
        filtered_ids=select(Tag.id).where(Tag.post_count > 0),
        id=Tag.id,
        sort_columns={"name": Tag.name, "post_count": Tag.post_count},
        projection=_PROJECTION,
        search=Search.of(TagSearch, Tag.id) if is_search else None,
    )


# --- Repair --------------------------------------------------------------------------------------

TAGS_BATCH = 500
LINKS_BATCH = 50_000
_SIZE = select(func.count()).where(PostTag.tag_id == Tag.id).correlate(Tag).scalar_subquery()
_TRUE_COUNT = (
    select(func.count())
    .select_from(PostTag)
    .join(Post, Post.id == PostTag.post_id)
    # Explicit: the filter that hides the trash does not reach into every expression.
    .where(PostTag.tag_id == Tag.id, Post.status == PostStatus.published, Post.deleted_at.is_(None))
    .correlate(Tag)
    .scalar_subquery()
)


async def find_miscounted(session: AsyncSession, *, after: int) -> tuple[int, list[int]]:
    """Look at the next TAGS_BATCH tags: return the id of the last one (0 if there are none), and
    the ids of those whose count seems wrong. Nothing is locked."""
    looked_at = select(Tag.id, _SIZE).where(Tag.id > after).order_by(Tag.id).limit(TAGS_BATCH)
    sizes = [(tag_id, size) for tag_id, size in await session.execute(looked_at)]
    wrong: list[int] = []
    for ids, size in _grouped(sizes):
        wrong += await _miscounted(session, ids, size)
    return (sizes[-1][0] if sizes else 0), wrong


def _grouped(sizes: Iterable[tuple[int, int]]) -> Iterator[tuple[list[int], int]]:
    """Yield groups of tags with at most LINKS_BATCH posts in total, or of one tag with more."""
    group: list[int] = []
    total = 0
    for tag_id, size in sizes:
        if group and total + size > LINKS_BATCH:
            yield group, total
            group, total = [], 0
        group.append(tag_id)
        total += size
    if group:
        yield group, total


async def _miscounted(session: AsyncSession, ids: list[int], size: int) -> Sequence[int]:
    if size > LINKS_BATCH:
        (tag_id,) = ids
        stored = await session.scalar(select(Tag.post_count).where(Tag.id == tag_id))
        return [] if stored == await _true_count(session, tag_id) else ids
    differs = select(Tag.id).where(Tag.id.in_(ids), Tag.post_count != _TRUE_COUNT)
    return (await session.scalars(differs.order_by(Tag.id))).all()


async def recount(session: AsyncSession, *, tag_id: int) -> int:
    """Correct the count of a tag; return how many were wrong: 1 or 0.

    A transaction that changes the count locks the tag until it commits: under that lock, the
    posts found here are those that the stored count must include.
    """
    locked = select(Tag.post_count).where(Tag.id == tag_id).with_for_update(key_share=True)
    stored = (await session.execute(locked)).scalar_one_or_none()
    true = await _true_count(session, tag_id)
    if stored is None or stored == true:
        return 0
    correction = update(Tag).where(Tag.id == tag_id).values(post_count=true)
    await session.execute(correction, execution_options={"synchronize_session": False})
    return 1


async def _true_count(session: AsyncSession, tag_id: int) -> int:
    """Count the live, published posts of a tag, LINKS_BATCH at a time: no statement takes long."""
    counting = (
        select(PostTag.post_id)
        .join(Post, Post.id == PostTag.post_id)
        .where(PostTag.tag_id == tag_id, Post.status == PostStatus.published)
        .where(Post.deleted_at.is_(None))
        .order_by(PostTag.post_id)
        .limit(LINKS_BATCH)
    )
    total = after = 0
    while True:
        part = counting.where(PostTag.post_id > after).subquery()
        found = await session.execute(
            select(func.count(), func.max(part.c.post_id)).select_from(part)
        )
        count, last = found.one()
        total += int(count)
        if count < LINKS_BATCH:
            return total
        after = last
