"""Posts: who sees which, and what happens to them."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from functools import lru_cache, partial
from typing import Any

from sqlalchemy import BigInteger, ColumnElement, bindparam, false, or_, select, true
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import joinedload, selectinload

from app.core.exceptions import AuthorDeleted
from app.core.permissions import Caller, Permission
from app.crud import guards, tags
from app.crud.base import flush_out, gathered, joined, one_or_404, read_one, scattered
from app.crud.listings import Listing, contains, filters_of
from app.crud.pages import PageOf, Pages
from app.models.base import INCLUDE_DELETED, utc_now
from app.models.posts import Post, PostStatus
from app.models.tags import PostTag, Tag
from app.models.users import User
from app.reading import Query, Reader
from app.schemas.posts import PostCreate, PostUpdate, UserPostQuery
from app.writing import Unit, in_session

_LOADED = (joinedload(Post.author), selectinload(Post.labels))
_TAGS = select(Tag.name).join(PostTag, PostTag.tag_id == Tag.id).where(PostTag.post_id == Post.id)
_OWN = (
    *("id", "title", "content", "status", "published_at", "version"),
    *("created_at", "updated_at", "deleted_at"),
)
_SHOWN = (
    *(getattr(Post, name) for name in _OWN),
    *(User.id, User.name, gathered(Tag.name, of=_TAGS.correlate(Post))),
)


def _item(row: tuple[Any, ...]) -> dict[str, Any]:
    """A post as `schemas.posts.Post` describes it."""
    id_, title, content, status, published_at, version, *_ = row
    created_at, updated_at, deleted_at, author_id, author_name, tags = row[6:12]
    return {
        "id": id_,
        "title": title,
        "content": content,
        "status": status,
        "published_at": published_at,
        "tags": sorted(scattered(tags)),
        "author": {"id": author_id, "name": author_name},
        "version": version,
        "created_at": created_at,
        "updated_at": updated_at,
        "deleted_at": deleted_at,
    }


class View(Enum):
    """How much of the posts a caller sees."""

    public = "public"
    own = "own"
    all = "all"

    @classmethod
    def of(cls, caller: Caller | None) -> View:
        """Moderators see all posts; others, beside the published ones, their own."""
        if caller is None:
            return cls.public
        return cls.all if caller.may(Permission.posts_moderate) else cls.own


_ME = bindparam("caller_id", type_=BigInteger)


def _me(caller: Caller | None) -> dict[str, Any]:
    return {"caller_id": caller.user_id if caller else None}


def visible(view: View) -> ColumnElement[bool]:
    """The live posts of a view: everybody sees the published ones, authors also their drafts.
    The only place that says so. Has the parameter `caller_id`."""
    if view is View.all:
        return true()
    published = Post.status == PostStatus.published
    return published if view is View.public else or_(published, Post.author_id == _ME)


def in_trash(view: View) -> ColumnElement[bool]:
    """The deleted posts of a view: authors see their own. Has the parameter `caller_id`."""
    if view is View.public:
        return false()
    deleted = Post.deleted_at.is_not(None)
    return deleted if view is View.all else (Post.author_id == _ME) & deleted


_ONE = {
    view: Query(
        select(*_SHOWN)
        .join(User, User.id == Post.author_id)
        .where(Post.id == bindparam("post_id"), visible(view))
    )
    for view in View
}


async def read(reader: Reader, *, caller: Caller | None, post_id: int) -> dict[str, Any]:
    """A live post the caller may see, or NotFound."""
    query = _ONE[View.of(caller)]
    return _item(await read_one(reader, query, post_id=post_id, **_me(caller)))


async def get_for_update(session: AsyncSession, *, caller: Caller, post_id: int) -> Post:
    """A live post the caller may see, locked until the end of the transaction, or NotFound."""
    statement = select(Post).where(Post.id == post_id, visible(View.of(caller)))
    statement = statement.params(**_me(caller)).options(*_LOADED)
    return await one_or_404(session, statement.with_for_update(of=Post))


async def get_for_restore(session: AsyncSession, *, caller: Caller, post_id: int) -> Post:
    """A post, live or in the trash, that the caller sees there; locked. NotFound otherwise."""
    view = View.of(caller)
    is_there = in_trash(view) & Post.can_be_restored()
    seen = or_(Post.deleted_at.is_(None) & visible(view), is_there)
    statement = select(Post).where(Post.id == post_id, seen).params(**_me(caller))
    statement = statement.options(*_LOADED).execution_options(**{INCLUDE_DELETED: True})
    return await one_or_404(session, statement.with_for_update(of=Post))


def create(unit: Unit, *, caller: Caller, data: PostCreate) -> dict[str, Any]:
    """Insert a post of the caller's and return it as reading it would.

    The caller is confirmed, and so locked, in this transaction: an author deleted at the same
    moment would leave a live post without a live author.
    """
    post = unit.insert(
        Post,
        author_id=caller.user_id,
        title=data.title,
        content=data.content,
        status=data.status,
        published_at=utc_now() if data.status is PostStatus.published else None,
    )
    for tag_id in tags.get_or_create(unit, names=data.tags):
        unit.insert(PostTag, post_id=post["id"], tag_id=tag_id)
    author = caller.user_id, caller.name
    return _item((*[post[name] for name in _OWN], *author, joined(data.tags)))


# Locks the author, who cannot be deleted before the transaction ends.
_AUTHOR = Query(select(User.id).where(User.id == bindparam("user_id")).with_for_update(read=True))


async def update(session: AsyncSession, *, post: Post, data: PostUpdate) -> Post:
    """Apply what the body holds, as one change; one that changes nothing keeps the version."""
    changes: dict[str, Any] = data.model_dump()
    names = changes.pop("tags", post.tags)
    if names != post.tags:
        ids = await in_session(session, partial(tags.get_or_create, names=names))
        labels = await session.scalars(select(Tag).where(Tag.id.in_(ids)))
        changes["labels"] = [*labels]
    post.change(**changes)
    await session.flush()
    return post


async def set_status(session: AsyncSession, *, post: Post, status: PostStatus) -> Post:
    """Publish a post or take it back to a draft; it may be so already."""
    post.change(status=status)
    await session.flush()
    return post


async def soft_delete(session: AsyncSession, *, post: Post) -> None:
    """Put a post in the trash."""
    post.soft_delete()
    await flush_out(session, post)


async def restore(session: AsyncSession, *, post: Post) -> Post:
    """Take a post out of the trash; a live one stays as it is.

    Raises AuthorDeleted for a post whose author is in the trash too: restoring the author
    brings it back.
    """
    if post.deleted_at is not None:
        # Before the lock for reading: two who have that would both wait to write.
        await guards.touch_user(session, post.author_id)
        if not await in_session(session, lambda unit: unit.rows(_AUTHOR, user_id=post.author_id)):
            raise AuthorDeleted
        post.restore()
        await session.flush()
    return post


async def list_posts(
    pages: Pages, *, caller: Caller | None, query: UserPostQuery, author_id: int | None = None
) -> PageOf[dict[str, Any]]:
    """The posts a caller sees that match the filters, perhaps of one author alone.

    Of an author who does not exist, or of whose posts the caller sees none, it is the same empty
    page: it does not tell who has an account.
    """
    given = filters_of(query)
    if author_id is not None:
        given["author_id"] = author_id
    listing = _listing(View.of(caller), query.deleted, tuple(given))
    return await pages.page(listing, query, given | _me(caller))


_HAVING = select(PostTag.post_id).join(Tag, Tag.id == PostTag.tag_id)
_FILTERS: Mapping[str, ColumnElement[bool]] = {
    "status": Post.status == bindparam("status"),
    "tag": Post.id.in_(_HAVING.where(Tag.name == bindparam("tag"))),
    "q": or_(contains(Post.title, "q"), contains(Post.content, "q")),
    "created_from": Post.created_at >= bindparam("created_from"),
    "created_to": Post.created_at < bindparam("created_to"),
    "author_id": Post.author_id == bindparam("author_id"),
}


# A compiled statement is some 30 KiB, and there is one for each sort that is asked for.
@lru_cache(64)
def _listing(view: View, deleted: bool, filters: tuple[str, ...]) -> Listing[dict[str, Any]]:
    matching = select(Post.id).where(*(_FILTERS[name] for name in filters))
    seen = in_trash(view) if deleted else visible(view)
    return Listing(
        name="posts",
        matching=matching.where(seen),
        # The published ones are as many for everybody, and counted once.
        counted=(
            matching.where(visible(View.public)),
            matching.where(Post.status != PostStatus.published, Post.author_id == _ME),
        )
        if view is View.own and not deleted
        else (),
        id=Post.id,
        keys={
            "created_at": Post.created_at,
            "updated_at": Post.updated_at,
            "published_at": Post.published_order,
            "title": Post.title,
        },
        rows=lambda page: (
            select(*_SHOWN).join(page, page.c.id == Post.id).join(User, User.id == Post.author_id)
        ),
        item=_item,
        include_deleted=deleted,
    )
