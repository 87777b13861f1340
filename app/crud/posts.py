"""Posts: which ones a caller sees, and their create, update, delete and restore."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from enum import Enum
from functools import partial
from typing import Any

from sqlalchemy import BigInteger, ColumnElement, bindparam, false, or_, select, true
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import joinedload, selectinload

from app.core.exceptions import AuthorDeleted
from app.core.permissions import Caller, Permission
from app.core.words import index_words
from app.crud import tags
from app.db import guards, trash
from app.db.projections import Projection, texts
from app.db.queries import PreparedQuery, QueryRunner
from app.db.rows import flush_and_expunge, one_or_404, read_one
from app.db.transactions import Transaction, session_transaction
from app.models.base import INCLUDE_DELETED, utc_now
from app.models.posts import Post, PostStatus
from app.models.search import PostSearch
from app.models.tags import PostTag, Tag
from app.models.users import User
from app.schemas import posts as schemas

_LOAD_OPTIONS = (joinedload(Post.author), selectinload(Post.tag_rows))
_TAGS = select(Tag.name).join(PostTag, PostTag.tag_id == Tag.id).where(PostTag.post_id == Post.id)
PROJECTION = Projection(
    schemas.Post,
    Post,
    joins=[(User, User.id == Post.author_id)],
    author=Projection(schemas.Author, User),
    tags=texts(Tag.name, from_select=_TAGS.correlate(Post)),
)


class PostVisibility(Enum):
    """How much of the posts a caller sees."""

    public = "public"
    own = "own"
    all = "all"

    @classmethod
    def of(cls, caller: Caller | None) -> PostVisibility:
        """Return `all` for moderators, `own` for other users, `public` for anonymous callers."""
        if caller is None:
            return cls.public
        return cls.all if caller.may(Permission.posts_moderate) else cls.own


CALLER_ID = bindparam("caller_id", type_=BigInteger)


def caller_id_parameter(caller: Caller | None) -> dict[str, Any]:
    """Return the value of the parameter `caller_id`; null for anonymous callers."""
    return {"caller_id": caller.user_id if caller else None}


def visible(visibility: PostVisibility) -> ColumnElement[bool]:
    """Return the condition for the live posts that this visibility includes: published ones, and
    the caller's drafts.

    The only definition of it. Has the parameter `caller_id`.
    """
    if visibility is PostVisibility.all:
        return true()
    published = Post.status == PostStatus.published
    if visibility is PostVisibility.public:
        return published
    return or_(published, Post.author_id == CALLER_ID)


def in_trash(visibility: PostVisibility) -> ColumnElement[bool]:
    """Return the condition for the deleted posts that this visibility includes: authors see
    their own.

    Has the parameter `caller_id`.
    """
    if visibility is PostVisibility.public:
        return false()
    deleted = Post.deleted_at.is_not(None)
    return deleted if visibility is PostVisibility.all else (Post.author_id == CALLER_ID) & deleted


_BY_ID = {
    visibility: PreparedQuery(
        PROJECTION.select().where(Post.id == bindparam("post_id"), visible(visibility))
    )
    for visibility in PostVisibility
}


async def read(reader: QueryRunner, *, caller: Caller | None, post_id: int) -> dict[str, Any]:
    """Return the live post if the caller may see it; raise NotFound otherwise."""
    query = _BY_ID[PostVisibility.of(caller)]
    return PROJECTION.from_row(
        await read_one(reader, query, post_id=post_id, **caller_id_parameter(caller))
    )


async def get_for_update(session: AsyncSession, *, caller: Caller, post_id: int) -> Post:
    """Return the live post, locked, if the caller may see it; raise NotFound otherwise."""
    statement = select(Post).where(Post.id == post_id, visible(PostVisibility.of(caller)))
    statement = statement.params(**caller_id_parameter(caller)).options(*_LOAD_OPTIONS)
    return await one_or_404(session, statement.with_for_update(of=Post))


async def get_for_restore(session: AsyncSession, *, caller: Caller, post_id: int) -> Post:
    """Return the post, locked, if the caller sees it, live or in the trash; else raise NotFound."""
    visibility = PostVisibility.of(caller)
    is_restorable = in_trash(visibility) & Post.can_be_restored()
    is_accessible = or_(Post.deleted_at.is_(None) & visible(visibility), is_restorable)
    statement = select(Post).where(Post.id == post_id, is_accessible).options(*_LOAD_OPTIONS)
    statement = statement.params(**caller_id_parameter(caller))
    statement = statement.execution_options(**{INCLUDE_DELETED: True})
    return await one_or_404(session, statement.with_for_update(of=Post))


def create(transaction: Transaction, *, caller: Caller, data: schemas.PostCreate) -> dict[str, Any]:
    """Insert a post of the caller's and return it as reading it would.

    The caller is confirmed, and so locked, in this transaction: an author deleted at the same
    time would leave a live post without a live author.
    """
    post = transaction.insert(
        Post,
        author_id=caller.user_id,
        title=data.title,
        content=data.content,
        status=data.status,
        published_at=utc_now() if data.status is PostStatus.published else None,
    )
    transaction.insert(PostSearch, id=post["id"], words=index_words(data.title, data.content))
    if data.tags:
        _link_tags(transaction, post["id"], data)
    author = {"id": caller.user_id, "name": caller.name}
    return PROJECTION.from_values({**post, "author": author, "tags": data.tags})


def _link_tags(transaction: Transaction, post_id: int, data: schemas.PostCreate) -> None:
    is_published = data.status is PostStatus.published
    ids = tags.get_or_create(transaction, names=data.tags, will_change_counts=is_published)
    tags.link(transaction, post_id=post_id, tag_ids=ids)
    if is_published:
        tags.adjust_locked_counts(transaction, dict.fromkeys(ids, 1))


# Locks the author, who cannot be deleted before the transaction ends.
_AUTHOR = PreparedQuery(
    select(User.id).where(User.id == bindparam("user_id")).with_for_update(read=True)
)


async def update(session: AsyncSession, *, post: Post, data: schemas.PostUpdate) -> Post:
    """Apply the body as one change; keep the version if nothing changes."""
    changes: dict[str, Any] = data.model_dump()
    names = changes.pop("tags", post.tags)
    async with _adjusting_tag_counts(session, post):
        if names != post.tags:
            statuses = {post.status, changes.get("status", post.status)}
            changes["tag_rows"] = await _get_tag_rows(
                session, post, names, will_change_counts=PostStatus.published in statuses
            )
        post.change(**changes)
    return post


async def _get_tag_rows(
    session: AsyncSession, post: Post, names: list[str], *, will_change_counts: bool
) -> list[Tag]:
    """Return the tags with these names; lock them together with those that the post has."""
    current_tag_ids = [tag.id for tag in post.tag_rows]
    get = partial(
        tags.get_or_create,
        names=names,
        will_change_counts=will_change_counts,
        also_lock_ids=current_tag_ids,
    )
    ids = await session_transaction(session, get)
    return [*await session.scalars(select(Tag).where(Tag.id.in_(ids)))]


@asynccontextmanager
async def _adjusting_tag_counts(session: AsyncSession, post: Post) -> AsyncIterator[None]:
    """Flush the changes that the block makes to a (locked) post, and adjust its tags' counts."""
    before = _counting_tag_ids(post)
    yield
    await session.flush()
    after = _counting_tag_ids(post)
    changes = dict.fromkeys(after - before, 1) | dict.fromkeys(before - after, -1)
    if changes:
        await session_transaction(session, partial(tags.lock_and_adjust_counts, changes=changes))


def _counting_tag_ids(post: Post) -> set[int]:
    """Return the ids of the tags whose counts include a post."""
    is_counted = post.status == PostStatus.published and post.deleted_at is None
    return {tag.id for tag in post.tag_rows} if is_counted else set()


async def set_status(session: AsyncSession, *, post: Post, status: PostStatus) -> Post:
    """Publish a post or turn it back into a draft; do nothing if it is so already."""
    async with _adjusting_tag_counts(session, post):
        post.change(status=status)
    return post


async def soft_delete(session: AsyncSession, *, post: Post) -> None:
    """Put a post in the trash."""
    async with _adjusting_tag_counts(session, post):
        post.soft_delete()
    await flush_and_expunge(session, post)
    await trash.delete_children(session, post)


async def restore(session: AsyncSession, *, post: Post) -> Post:
    """Take a post out of the trash; a live one stays as it is.

    Raises AuthorDeleted for a post whose author is in the trash too: restoring the author
    brings it back.
    """
    if post.deleted_at is not None:
        # Before the shared lock: two transactions that hold it would deadlock on this write.
        await guards.touch_user(session, post.author_id)
        if not await session_transaction(
            session, lambda transaction: transaction.rows(_AUTHOR, user_id=post.author_id)
        ):
            raise AuthorDeleted
        async with _adjusting_tag_counts(session, post):
            post.restore()
        await trash.restore_children(session, post)
    return post
