"""Tags: made when a post first uses them, counted by the published posts that have them."""

from __future__ import annotations

from functools import cache
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.crud.base import add_if_missing
from app.crud.listings import Listing, contains, filters_of
from app.crud.pages import PageOf, Pages
from app.models.posts import Post, PostStatus
from app.models.tags import PostTag, Tag
from app.schemas.tags import TagQuery


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


_COUNTED = (
    select(Tag.id, Tag.name, func.count().label("post_count"))
    .join(PostTag, PostTag.tag_id == Tag.id)
    .join(Post, Post.id == PostTag.post_id)
    .where(Post.status == PostStatus.published)
    .group_by(Tag.id, Tag.name)
    .subquery("counted")
)


async def list_tags(pages: Pages, *, query: TagQuery) -> PageOf[dict[str, Any]]:
    """Tags of published posts. A tag that only drafts have is as invisible as they are."""
    given = filters_of(query)
    return await pages.page(_listing(is_search="q" in given), query, given)


@cache
def _listing(*, is_search: bool) -> Listing[dict[str, Any]]:
    matching = select(_COUNTED)
    return Listing(
        name="tags",
        matching=matching.where(contains(_COUNTED.c.name, "q")) if is_search else matching,
        id=_COUNTED.c.id,
        keys={"name": _COUNTED.c.name, "post_count": _COUNTED.c.post_count},
        rows=lambda page: select(_COUNTED).join(page, page.c.id == _COUNTED.c.id),
        item=lambda row: {"id": row[0], "name": row[1], "post_count": row[2]},
    )
