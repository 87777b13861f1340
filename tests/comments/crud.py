"""Comments: read, listed, made and deleted."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Select, Subquery, bindparam, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.exceptions import NotFound
from app.core.permissions import Caller
from app.db.paginated_queries import PaginatedQuery
from app.db.pagination import PageResult, Paginator
from app.db.queries import PreparedQuery, QueryRunner
from app.db.rows import flush_and_expunge, one_or_404, read_one
from app.db.transactions import Transaction
from app.models.posts import Post, PostStatus
from tests.comments.models import Comment
from tests.comments.schemas import CommentCreate, CommentQuery

_NAMES = ("id", "post_id", "author_id", "text", "created_at")
_COLUMNS = [getattr(Comment, name) for name in _NAMES]
_OF_POST = Comment.post_id == bindparam("post_id")
_ONE = PreparedQuery(select(*_COLUMNS).where(_OF_POST, Comment.id == bindparam("comment_id")))
# Locks the post, which cannot be deleted before the transaction ends.
_POST = PreparedQuery(
    select(Post.id)
    .where(Post.id == bindparam("post_id"), Post.status == PostStatus.published)
    .with_for_update(read=True)
)


def as_dict(row: tuple[Any, ...]) -> dict[str, Any]:
    """Return a comment as `schemas.Comment` describes it."""
    return dict(zip(_NAMES, row, strict=False))


def _rows(page: Subquery) -> Select[Any]:
    return select(*_COLUMNS).join(page, page.c.id == Comment.id)


_LISTING = PaginatedQuery(
    name="comments",
    matching=select(Comment.id).where(_OF_POST),
    id=Comment.id,
    keys={"created_at": Comment.created_at},
    rows=_rows,
    item=as_dict,
)


async def list_comments(
    paginator: Paginator, *, post_id: int, query: CommentQuery
) -> PageResult[dict[str, Any]]:
    """Return a page of the live comments on a post."""
    return await paginator.paginate(_LISTING, query, {"post_id": post_id})


async def read(reader: QueryRunner, *, post_id: int, comment_id: int) -> dict[str, Any]:
    """Return a live comment; raise NotFound otherwise."""
    return as_dict(await read_one(reader, _ONE, post_id=post_id, comment_id=comment_id))


def create(
    transaction: Transaction, *, caller: Caller, post_id: int, data: CommentCreate
) -> dict[str, Any]:
    """Insert a comment on a published post; raise NotFound for any other."""
    if not transaction.rows(_POST, post_id=post_id):
        raise NotFound
    values = {"post_id": post_id, "author_id": caller.user_id, "text": data.text}
    made = transaction.insert(Comment, **values)
    return as_dict(tuple(made[name] for name in _NAMES))


async def get_for_update(
    session: AsyncSession, *, caller: Caller, post_id: int, comment_id: int
) -> Comment:
    """Return a live comment of the caller's, locked; raise NotFound otherwise."""
    mine = select(Comment).where(
        Comment.id == comment_id,
        Comment.post_id == post_id,
        Comment.author_id == caller.user_id,
    )
    return await one_or_404(session, mine.with_for_update())


async def soft_delete(session: AsyncSession, *, comment: Comment) -> None:
    """Put a comment in the trash."""
    comment.soft_delete()
    await flush_and_expunge(session, comment)
