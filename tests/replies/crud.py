"""Read, list, create and delete replies."""

from __future__ import annotations

from typing import Any

from sqlalchemy import bindparam, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.exceptions import NotFound
from app.core.permissions import Caller
from app.db.paginated_queries import PaginatedQuery
from app.db.pagination import PageResult, Paginator
from app.db.projections import Projection
from app.db.queries import PreparedQuery, QueryRunner
from app.db.rows import flush_and_expunge, one_or_404, read_one
from app.db.transactions import Transaction
from app.models.posts import Post, PostStatus
from tests.replies import schemas
from tests.replies.models import Reply

_PROJECTION = Projection(schemas.Reply, Reply)
_OF_POST = Reply.post_id == bindparam("post_id")
_BY_ID = PreparedQuery(_PROJECTION.select().where(_OF_POST, Reply.id == bindparam("reply_id")))
# Locks the post, which cannot be deleted before the transaction ends.
_POST = PreparedQuery(
    select(Post.id)
    .where(Post.id == bindparam("post_id"), Post.status == PostStatus.published)
    .with_for_update(read=True)
)


_LISTING = PaginatedQuery(
    name="replies",
    filtered_ids=select(Reply.id).where(_OF_POST),
    id=Reply.id,
    sort_columns={"created_at": Reply.created_at},
    projection=_PROJECTION,
)


async def list_replies(
    paginator: Paginator, *, post_id: int, query: schemas.ReplyQuery
) -> PageResult[dict[str, Any]]:
    """Return a page of the live replies to a post."""
    return await paginator.paginate(_LISTING, query, {"post_id": post_id})


async def read(reader: QueryRunner, *, post_id: int, reply_id: int) -> dict[str, Any]:
    """Return a live reply; raise NotFound otherwise."""
    return _PROJECTION.from_row(await read_one(reader, _BY_ID, post_id=post_id, reply_id=reply_id))


def create(
    transaction: Transaction, *, caller: Caller, post_id: int, data: schemas.ReplyCreate
) -> dict[str, Any]:
    """Insert a reply to a published post; raise NotFound for any other."""
    if not transaction.rows(_POST, post_id=post_id):
        raise NotFound
    values = {"post_id": post_id, "author_id": caller.user_id, "text": data.text}
    row = transaction.insert(Reply, **values)
    return _PROJECTION.from_values(row)


async def get_for_update(
    session: AsyncSession, *, caller: Caller, post_id: int, reply_id: int
) -> Reply:
    """Return a live reply of the caller's, locked; raise NotFound otherwise."""
    mine = select(Reply).where(
        Reply.id == reply_id,
        Reply.post_id == post_id,
        Reply.author_id == caller.user_id,
    )
    return await one_or_404(session, mine.with_for_update())


async def soft_delete(session: AsyncSession, *, reply: Reply) -> None:
    """Put a reply in the trash."""
    reply.soft_delete()
    await flush_and_expunge(session, reply)
