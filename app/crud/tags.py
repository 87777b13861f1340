"""Tags: made when a post first uses them, counted by the published posts that have them."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Row, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.crud.base import Cursors, Listing, PageOf, add_if_missing, paginate
from app.models.posts import Post, PostStatus
from app.models.tags import PostTag, Tag
from app.schemas.tags import TagCount, TagQuery


async def get_or_create(session: AsyncSession, *, names: list[str]) -> list[Tag]:
    """The tags with these (normalised) names, in their order; missing ones are made."""
    if not names:
        return []
    statement = select(Tag).where(Tag.name.in_(names))
    known = {tag.name for tag in await session.scalars(statement)}
    for name in sorted(set(names) - known):
        await add_if_missing(session, Tag(name=name))
    by_name = {tag.name: tag for tag in await session.scalars(statement)}
    return [by_name[name] for name in names]


async def list_tags(
    session: AsyncSession, *, query: TagQuery, cursors: Cursors
) -> PageOf[TagCount]:
    """Tags of published posts. A tag that only drafts have is as invisible as they are."""
    counted = (
        select(Tag.id, Tag.name, func.count().label("post_count"))
        .join(PostTag, PostTag.tag_id == Tag.id)
        .join(Post, Post.id == PostTag.post_id)
        .where(Post.status == PostStatus.published)
        .group_by(Tag.id, Tag.name)
        .subquery("counted")
    )
    matching = select(counted)
    if query.q:
        matching = matching.where(counted.c.name.contains(query.q.casefold(), autoescape=True))
    listing = Listing(
        name="tags",
        matching=matching,
        id=counted.c.id,
        keys={"name": counted.c.name, "post_count": counted.c.post_count},
        rows=lambda page: select(counted).join(page, page.c.id == counted.c.id),
        item=_tag_count,
    )
    return await paginate(session, listing, query, cursors)


def _tag_count(row: Row[*tuple[Any, ...]]) -> TagCount:
    return TagCount(id=row[0], name=row[1], post_count=row[2])
