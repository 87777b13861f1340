"""The listing of posts: its filters, its orders, and how it is counted."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from sqlalchemy import ColumnElement, Select, bindparam, func, select

from app.core.permissions import Caller
from app.crud import posts
from app.db.paginated_queries import PaginatedQuery, count_of, filters_of, sought
from app.db.pagination import PageResult, Paginator
from app.db.search import Search
from app.db.selective_filters import FilterForm, SelectiveFilter
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
    parameters = filters_of(query)
    if author_id is not None:
        parameters["author_id"] = author_id
    visibility, filters, order = (
        posts.PostVisibility.of(caller),
        tuple(parameters),
        query.sort.removeprefix("-"),
    )
    if visibility is posts.PostVisibility.own and query.status is PostStatus.draft:
        filters = (*filters, "mine")
    if order == "published_at":
        filters = (*filters, *_by_publication(visibility, query))
    if query.deleted and visibility is posts.PostVisibility.all:
        filters = (*filters, "deleted")
    form, leading = FilterForm.selective, _leading_filter(filters)
    # The index of an author's posts is already in the order of `created_at`.
    if leading and (leading, order) != ("author_id", "created_at"):
        form = await _SELECTIVE_FILTERS[leading].choose_form(paginator, query, parameters)
    words = sought(query)
    listing = _listing(visibility, query.deleted, filters, form, is_search=bool(words))
    return await paginator.paginate(
        listing, query, parameters | words | posts.caller_id_parameter(caller)
    )


_THE_TAG = select(Tag.id).where(Tag.name == bindparam("tag")).scalar_subquery()
_OF_THE_TAG = select(func.coalesce(func.max(Tag.post_count), 0)).where(Tag.name == bindparam("tag"))
_TAGGED = SelectiveFilter.by_association(
    Post, select(PostTag.post_id).where(PostTag.tag_id == _THE_TAG)
)
_BY_AUTHOR = SelectiveFilter.by_column(Post, Post.author_id == bindparam("author_id"))
_IN_TRASH = SelectiveFilter.by_column(Post, posts.in_trash(posts.PostVisibility.all))
# The form of the first of these filters that is used is chosen for each page.
_SELECTIVE_FILTERS = {"tag": _TAGGED, "author_id": _BY_AUTHOR, "deleted": _IN_TRASH}
_NEVER = datetime(1970, 1, 1, tzinfo=UTC)
_FILTERS: Mapping[str, ColumnElement[bool]] = {
    "status": Post.status == bindparam("status"),
    "created_from": Post.created_at >= bindparam("created_from"),
    "created_to": Post.created_at < bindparam("created_to"),
    # The part of `visible` about drafts: with all of it, databases would scan all posts.
    "mine": Post.author_id == posts.CALLER_ID,
    # Drafts are adjacent in the order of publication: this skips them as one range.
    "unpublished": Post.published_order == _NEVER,
    "published": Post.published_order > _NEVER,
}


def _by_publication(visibility: posts.PostVisibility, query: UserPostQuery) -> list[str]:
    """Return the filters that express the status as ranges of the order of publication."""
    if query.status is PostStatus.draft:
        return ["unpublished"]
    sees_drafts = query.status is None and visibility is not posts.PostVisibility.public
    return [] if sees_drafts or query.deleted else ["published"]


def _leading_filter(filters: tuple[str, ...]) -> str:
    """Return the filter whose form is chosen, or an empty string."""
    return next((name for name in _SELECTIVE_FILTERS if name in filters), "")


def _filtered_ids(filters: tuple[str, ...], form: FilterForm) -> Select[Any]:
    """Return the query of the posts; `form` is that of the `_leading_filter`."""
    leading = _leading_filter(filters)
    conditions = [
        _SELECTIVE_FILTERS[name].filter(form if name == leading else FilterForm.selective)
        if name in _SELECTIVE_FILTERS
        else _FILTERS[name]
        for name in filters
    ]
    return select(Post.id).where(*conditions)


def _counts(
    visibility: posts.PostVisibility, deleted: bool, filters: tuple[str, ...]
) -> list[Select[Any]]:
    filters = tuple(name for name in filters if name not in {"published", "unpublished"})
    filtered_ids = _filtered_ids(filters, FilterForm.count)
    if deleted:
        return [count_of(filtered_ids.where(posts.in_trash(visibility)))]
    # Published posts are the same for every caller: count them once. A tag stores its count.
    published = count_of(filtered_ids.where(posts.visible(posts.PostVisibility.public)))
    unpublished = filtered_ids.where(Post.status != PostStatus.published)
    parts = {
        posts.PostVisibility.public: [],
        posts.PostVisibility.own: [count_of(unpublished.where(Post.author_id == posts.CALLER_ID))],
        posts.PostVisibility.all: [count_of(unpublished)],
    }
    if filters == ("tag",):
        return [_OF_THE_TAG, *parts[visibility]]
    if visibility is posts.PostVisibility.all:
        return [count_of(filtered_ids)]
    return [published, *parts[visibility]]


# A compiled statement is some 30 KiB, and there is one for each sort that is asked for.
@lru_cache(64)
def _listing(
    visibility: posts.PostVisibility,
    deleted: bool,
    filters: tuple[str, ...],
    form: FilterForm,
    *,
    is_search: bool,
) -> PaginatedQuery:
    filtered_ids = _filtered_ids(filters, form)
    if "deleted" not in filters:
        is_listed = posts.in_trash(visibility) if deleted else posts.visible(visibility)
        filtered_ids = filtered_ids.where(is_listed)
    return PaginatedQuery(
        name="posts",
        filtered_ids=filtered_ids,
        count_queries=_counts(visibility, deleted, filters),
        id=Post.id,
        sort_columns={
            "created_at": Post.created_at,
            "updated_at": Post.updated_at,
            "published_at": Post.published_order,
            "title": Post.title,
        },
        projection=posts.PROJECTION,
        include_deleted=deleted,
        search=Search.of(PostSearch, Post.id) if is_search else None,
    )
