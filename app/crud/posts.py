"""Posts: who sees which, and what happens to them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from enum import Enum
from functools import lru_cache, partial
from typing import Any

from sqlalchemy import BigInteger, ColumnElement, Select, bindparam, false, or_, select, true
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import joinedload, selectinload

from app.core.exceptions import AuthorDeleted
from app.core.permissions import Caller, Permission
from app.core.words import index_words
from app.crud import guards, tags
from app.crud.base import flush_out, gathered, joined, one_or_404, read_one, scattered
from app.crud.holders import Held, Holders
from app.crud.listings import Listing, filters_of, sought
from app.crud.pages import PageOf, Pages
from app.crud.search import Search
from app.models.base import INCLUDE_DELETED, utc_now
from app.models.posts import Post, PostStatus
from app.models.search import PostSearch
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
    unit.insert(PostSearch, id=post["id"], words=index_words(data.title, data.content))
    if data.tags:
        _give_tags(unit, post["id"], data)
    author = caller.user_id, caller.name
    return _item((*[post[name] for name in _OWN], *author, joined(data.tags)))


def _give_tags(unit: Unit, post_id: int, data: PostCreate) -> None:
    is_published = data.status is PostStatus.published
    ids = tags.get_or_create(unit, names=data.tags, counted=is_published)
    tags.link(unit, post_id=post_id, tag_ids=ids)
    if is_published:
        tags.add(unit, dict.fromkeys(ids, 1))


# Locks the author, who cannot be deleted before the transaction ends.
_AUTHOR = Query(select(User.id).where(User.id == bindparam("user_id")).with_for_update(read=True))


async def update(session: AsyncSession, *, post: Post, data: PostUpdate) -> Post:
    """Apply what the body holds, as one change; one that changes nothing keeps the version."""
    changes: dict[str, Any] = data.model_dump()
    names = changes.pop("tags", post.tags)
    async with _counting(session, post):
        if names != post.tags:
            counted = PostStatus.published in {post.status, changes.get("status", post.status)}
            changes["labels"] = await _labels(session, post, names, counted=counted)
        post.change(**changes)
    return post


async def _labels(
    session: AsyncSession, post: Post, names: list[str], *, counted: bool
) -> list[Tag]:
    """The tags with these names, locked together with those that the post has."""
    others = [label.id for label in post.labels]
    get = partial(tags.get_or_create, names=names, counted=counted, others=others)
    ids = await in_session(session, get)
    return [*await session.scalars(select(Tag).where(Tag.id.in_(ids)))]


@asynccontextmanager
async def _counting(session: AsyncSession, post: Post) -> AsyncIterator[None]:
    """Write what the block changes about a (locked) post, and the counts of its tags with it."""
    before = _counted(post)
    yield
    await session.flush()
    after = _counted(post)
    changes = dict.fromkeys(after - before, 1) | dict.fromkeys(before - after, -1)
    if changes:
        await in_session(session, partial(tags.shift, changes=changes))


def _counted(post: Post) -> set[int]:
    """The ids of the tags that count a post."""
    is_counted = post.status == PostStatus.published and post.deleted_at is None
    return {label.id for label in post.labels} if is_counted else set()


async def set_status(session: AsyncSession, *, post: Post, status: PostStatus) -> Post:
    """Publish a post or take it back to a draft; it may be so already."""
    async with _counting(session, post):
        post.change(status=status)
    return post


async def soft_delete(session: AsyncSession, *, post: Post) -> None:
    """Put a post in the trash."""
    async with _counting(session, post):
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
        async with _counting(session, post):
            post.restore()
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
    view, filters = View.of(caller), tuple(given)
    if view is View.own and query.status is PostStatus.draft:
        filters = (*filters, "mine")
    held = Held.few
    if "tag" in given:
        held = await _TAGGED.held(pages, query, given)
    words = sought(query)
    listing = _listing(view, query.deleted, filters, held, is_search=bool(words))
    return await pages.page(listing, query, given | words | _me(caller))


_THE_TAG = select(Tag.id).where(Tag.name == bindparam("tag")).scalar_subquery()
_TAGGED = Holders(Post, select(PostTag.post_id).where(PostTag.tag_id == _THE_TAG))
_FILTERS: Mapping[str, ColumnElement[bool]] = {
    "status": Post.status == bindparam("status"),
    "created_from": Post.created_at >= bindparam("created_from"),
    "created_to": Post.created_at < bindparam("created_to"),
    "author_id": Post.author_id == bindparam("author_id"),
    # Of what `visible` says of drafts, what is left: databases would look for them among all posts.
    "mine": Post.author_id == _ME,
}


def _matching(filters: tuple[str, ...], held: Held) -> Select[Any]:
    conditions = [_TAGGED.filter(held) if name == "tag" else _FILTERS[name] for name in filters]
    return select(Post.id).where(*conditions)


# A compiled statement is some 30 KiB, and there is one for each sort that is asked for.
@lru_cache(64)
def _listing(
    view: View, deleted: bool, filters: tuple[str, ...], held: Held, *, is_search: bool
) -> Listing[dict[str, Any]]:
    seen = in_trash(view) if deleted else visible(view)
    counting = _matching(filters, Held.count)
    return Listing(
        name="posts",
        matching=_matching(filters, held).where(seen),
        # The published ones are as many for everybody, and counted once.
        counted=(
            counting.where(visible(View.public)),
            counting.where(Post.status != PostStatus.published, Post.author_id == _ME),
        )
        if view is View.own and not deleted
        else (counting.where(seen),),
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
        search=Search.of(PostSearch, Post.id) if is_search else None,
    )
