"""The listing of posts: its filters, its orders, and how it is counted."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from sqlalchemy import ColumnElement, Select, bindparam, func, select

from app.core.permissions import Caller
from app.crud import posts
from app.db.holders import Held, Holders
from app.db.paginated_queries import PaginatedQuery, count_of, filters_of, sought
from app.db.pagination import PageResult, Paginator
from app.db.search import Search
from app.models.posts import Post, PostStatus
from app.models.search import PostSearch
from app.models.tags import PostTag, Tag
from app.schemas.posts import UserPostQuery


async def list_posts(
    paginator: Paginator,
    *,
    caller: Caller | None,
    query: UserPostQuery,
    author_id: int | None = None,
) -> PageResult[dict[str, Any]]:
    """Return a page of the posts a caller sees that match the filters, or of those of one author.

    Return the same empty page for an author who does not exist and for one whose posts the
    caller may not see: it does not disclose who has an account.
    """
    given = filters_of(query)
    if author_id is not None:
        given["author_id"] = author_id
    view, filters, order = (
        posts.PostVisibility.of(caller),
        tuple(given),
        query.sort.removeprefix("-"),
    )
    if view is posts.PostVisibility.own and query.status is PostStatus.draft:
        filters = (*filters, "mine")
    if order == "published_at":
        filters = (*filters, *_by_publication(view, query))
    if query.deleted and view is posts.PostVisibility.all:
        filters = (*filters, "deleted")
    held, leading = Held.few, _leading_filter(filters)
    # The index of an author's posts is already in the order of `created_at`.
    if leading and (leading, order) != ("author_id", "created_at"):
        held = await _HELD[leading].held(paginator, query, given)
    words = sought(query)
    listing = _listing(view, query.deleted, filters, held, is_search=bool(words))
    return await paginator.paginate(listing, query, given | words | posts.me_of(caller))


_THE_TAG = select(Tag.id).where(Tag.name == bindparam("tag")).scalar_subquery()
_OF_THE_TAG = select(func.coalesce(func.max(Tag.post_count), 0)).where(Tag.name == bindparam("tag"))
_TAGGED = Holders.of(Post, select(PostTag.post_id).where(PostTag.tag_id == _THE_TAG))
_BY_AUTHOR = Holders.by(Post, Post.author_id == bindparam("author_id"))
_IN_TRASH = Holders.by(Post, posts.in_trash(posts.PostVisibility.all))
# The first of these filters that is used may be written in several ways.
_HELD = {"tag": _TAGGED, "author_id": _BY_AUTHOR, "deleted": _IN_TRASH}
_NEVER = datetime(1970, 1, 1, tzinfo=UTC)
_FILTERS: Mapping[str, ColumnElement[bool]] = {
    "status": Post.status == bindparam("status"),
    "created_from": Post.created_at >= bindparam("created_from"),
    "created_to": Post.created_at < bindparam("created_to"),
    # The part of `visible` about drafts: with all of it, databases would scan all posts.
    "mine": Post.author_id == posts.ME,
    # Drafts are adjacent in the order of publication: this skips them as one range.
    "unpublished": Post.published_order == _NEVER,
    "published": Post.published_order > _NEVER,
}


def _by_publication(view: posts.PostVisibility, query: UserPostQuery) -> list[str]:
    """Return the filters that express the status as ranges of the order of publication."""
    if query.status is PostStatus.draft:
        return ["unpublished"]
    sees_drafts = query.status is None and view is not posts.PostVisibility.public
    return [] if sees_drafts or query.deleted else ["published"]


def _leading_filter(filters: tuple[str, ...]) -> str:
    """Return the filter that may be written in several ways, or an empty string."""
    return next((name for name in _HELD if name in filters), "")


def _matching(filters: tuple[str, ...], held: Held) -> Select[Any]:
    """Return the query of the posts; `held` says how `_leading_filter` is written."""
    leading = _leading_filter(filters)
    conditions = [
        _HELD[name].filter(held if name == leading else Held.few)
        if name in _HELD
        else _FILTERS[name]
        for name in filters
    ]
    return select(Post.id).where(*conditions)


def _counts(
    view: posts.PostVisibility, deleted: bool, filters: tuple[str, ...]
) -> list[Select[Any]]:
    filters = tuple(name for name in filters if name not in {"published", "unpublished"})
    matching = _matching(filters, Held.count)
    if deleted:
        return [count_of(matching.where(posts.in_trash(view)))]
    # Published posts are the same for every caller: count them once. A tag stores its count.
    published = count_of(matching.where(posts.visible(posts.PostVisibility.public)))
    others = matching.where(Post.status != PostStatus.published)
    parts = {
        posts.PostVisibility.public: [],
        posts.PostVisibility.own: [count_of(others.where(Post.author_id == posts.ME))],
        posts.PostVisibility.all: [count_of(others)],
    }
    if filters == ("tag",):
        return [_OF_THE_TAG, *parts[view]]
    return [count_of(matching)] if view is posts.PostVisibility.all else [published, *parts[view]]


# A compiled statement is some 30 KiB, and there is one for each sort that is asked for.
@lru_cache(64)
def _listing(
    view: posts.PostVisibility,
    deleted: bool,
    filters: tuple[str, ...],
    held: Held,
    *,
    is_search: bool,
) -> PaginatedQuery:
    matching = _matching(filters, held)
    if "deleted" not in filters:
        seen = posts.in_trash(view) if deleted else posts.visible(view)
        matching = matching.where(seen)
    return PaginatedQuery(
        name="posts",
        matching=matching,
        count_queries=_counts(view, deleted, filters),
        id=Post.id,
        keys={
            "created_at": Post.created_at,
            "updated_at": Post.updated_at,
            "published_at": Post.published_order,
            "title": Post.title,
        },
        projection=posts.SHOWN,
        include_deleted=deleted,
        search=Search.of(PostSearch, Post.id) if is_search else None,
    )
