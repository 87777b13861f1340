"""Posts: who sees which, and what happens to them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sqlalchemy import ColumnElement, false, or_, select, true
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import joinedload, selectinload

from app.core.exceptions import AuthorDeleted, InvalidToken
from app.core.permissions import Caller, Permission
from app.crud import tags, users
from app.crud.base import Cursors, Listing, PageOf, flush_out, one_or_404, paginate
from app.models.base import INCLUDE_DELETED, utc_now
from app.models.posts import Post, PostStatus
from app.models.tags import PostTag, Tag
from app.models.users import User
from app.schemas.posts import PostCreate, PostUpdate, UserPostQuery

_SHOWN = (joinedload(Post.author), selectinload(Post.labels))


def visible_to(caller: Caller | None) -> ColumnElement[bool]:
    """The live posts a caller sees: everybody the published ones, authors also their drafts,
    moderators all. The only place that says so."""
    if caller is not None and caller.may(Permission.posts_moderate):
        return true()
    published = Post.status == PostStatus.published
    return published if caller is None else or_(published, Post.author_id == caller.user_id)


def in_trash_of(caller: Caller | None) -> ColumnElement[bool]:
    """The deleted posts a caller sees: authors their own, moderators all."""
    if caller is None:
        return false()
    if caller.may(Permission.posts_moderate):
        return Post.deleted_at.is_not(None)
    return (Post.author_id == caller.user_id) & Post.deleted_at.is_not(None)


async def get(session: AsyncSession, *, caller: Caller | None, post_id: int) -> Post:
    """A live post the caller may see, or NotFound."""
    statement = select(Post).where(Post.id == post_id, visible_to(caller)).options(*_SHOWN)
    return await one_or_404(session, statement)


async def get_for_update(session: AsyncSession, *, caller: Caller, post_id: int) -> Post:
    """The same, locked until the end of the transaction."""
    statement = select(Post).where(Post.id == post_id, visible_to(caller)).options(*_SHOWN)
    return await one_or_404(session, statement.with_for_update(of=Post))


async def get_for_restore(session: AsyncSession, *, caller: Caller, post_id: int) -> Post:
    """A post, live or in the trash, that the caller sees there; locked. NotFound otherwise."""
    seen = or_(Post.deleted_at.is_(None) & visible_to(caller), in_trash_of(caller))
    statement = select(Post).where(Post.id == post_id, seen).options(*_SHOWN)
    statement = statement.execution_options(**{INCLUDE_DELETED: True})
    return await one_or_404(session, statement.with_for_update(of=Post))


async def create(session: AsyncSession, *, caller: Caller, data: PostCreate) -> Post:
    """A new post of the caller's.

    The author's row is locked against a deletion at the same moment, which would leave a live
    post without a live author; InvalidToken when it was faster.
    """
    author = await _live_author(session, caller.user_id)
    if author is None:
        raise InvalidToken
    post = Post(
        title=data.title,
        content=data.content,
        status=data.status,
        published_at=utc_now() if data.status is PostStatus.published else None,
        author=author,
        labels=await tags.get_or_create(session, names=data.tags),
    )
    session.add(post)
    await session.flush()
    return post


async def _live_author(session: AsyncSession, user_id: int) -> User | None:
    return await session.scalar(select(User).where(User.id == user_id).with_for_update(read=True))


async def update(session: AsyncSession, *, post: Post, data: PostUpdate) -> Post:
    """Apply what the body holds, as one change; one that changes nothing keeps the version."""
    changes: dict[str, Any] = data.model_dump()
    names = changes.pop("tags", post.tags)
    if names != post.tags:
        changes["labels"] = await tags.get_or_create(session, names=names)
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
        if await _live_author(session, post.author_id) is None:
            raise AuthorDeleted
        post.restore()
        await session.flush()
    return post


async def list_posts(
    session: AsyncSession,
    *,
    caller: Caller | None,
    query: UserPostQuery,
    cursors: Cursors,
    author_id: int | None = None,
) -> PageOf[Post]:
    """The posts a caller sees that match the filters, perhaps of one author alone."""
    filters = list(_filters(query, caller))
    if author_id is not None:
        filters.append(Post.author_id == author_id)
    listing = Listing(
        name="posts",
        matching=select(Post.id).where(*filters),
        id=Post.id,
        keys={
            "created_at": Post.created_at,
            "updated_at": Post.updated_at,
            "published_at": Post.published_order,
            "title": Post.title,
        },
        rows=lambda page: select(Post).join(page, page.c.id == Post.id).options(*_SHOWN),
        item=lambda row: row[0],
        include_deleted=query.deleted,
    )
    return await paginate(session, listing, query, cursors)


async def list_of_author(
    session: AsyncSession,
    *,
    caller: Caller | None,
    author_id: int,
    query: UserPostQuery,
    cursors: Cursors,
) -> PageOf[Post]:
    """The posts of one author that a caller sees, or NotFound."""
    page = await list_posts(
        session, caller=caller, query=query, cursors=cursors, author_id=author_id
    )
    # Only an empty page leaves open whether there is such a user: one statement less otherwise.
    if not page.items:
        await users.require(session, user_id=author_id)
    return page


def _filters(query: UserPostQuery, caller: Caller | None) -> Iterator[ColumnElement[bool]]:
    yield in_trash_of(caller) if query.deleted else visible_to(caller)
    if query.status is not None:
        yield Post.status == query.status
    if query.tag is not None:
        having = select(PostTag.post_id).join(Tag, Tag.id == PostTag.tag_id)
        yield Post.id.in_(having.where(Tag.name == query.tag))
    if query.q:
        yield or_(
            Post.title.icontains(query.q, autoescape=True),
            Post.content.icontains(query.q, autoescape=True),
        )
    if query.created_from is not None:
        yield Post.created_at >= query.created_from
    if query.created_to is not None:
        yield Post.created_at < query.created_to
