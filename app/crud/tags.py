"""Tags: made when a post first uses them, counted by the published posts that have them."""

from __future__ import annotations

from functools import cache
from typing import Any

from sqlalchemy import bindparam, func, select

from app.core.words import index_words
from app.crud.listings import Listing, sought
from app.crud.pages import PageOf, Pages
from app.crud.search import Search
from app.models.posts import Post, PostStatus
from app.models.search import TagSearch
from app.models.tags import MAX_TAGS, PostTag, Tag
from app.reading import Query
from app.schemas.tags import TagQuery
from app.writing import Unit

# Locked, so that none is purged as unused before the post that gets it is there.
_NAMED = Query(
    select(Tag.id, Tag.name)
    .where(Tag.name.in_([bindparam(f"name_{n}") for n in range(MAX_TAGS)]))
    .with_for_update(read=True, key_share=True)
)


def get_or_create(unit: Unit, *, names: list[str]) -> list[int]:
    """The ids of the tags with these (normalised) names; missing ones are made."""
    if not names:
        return []
    wanted = {f"name_{n}": names[min(n, len(names) - 1)] for n in range(MAX_TAGS)}
    found = unit.rows(_NAMED, **wanted)
    # Over again for one that was purged between the two.
    while missing := sorted(set(names) - {name for _, name in found}):
        for name in missing:
            unit.insert_if_missing(Tag, name=name)
        found = unit.rows(_NAMED, **wanted)
        for id_, name in found:
            if name in missing:
                unit.insert_if_missing(TagSearch, id=id_, words=index_words(name))
    return [id_ for id_, _ in found]


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
    words = sought(query)
    return await pages.page(_listing(is_search=bool(words)), query, words)


@cache
def _listing(*, is_search: bool) -> Listing[dict[str, Any]]:
    return Listing(
        name="tags",
        matching=select(_COUNTED),
        id=_COUNTED.c.id,
        keys={"name": _COUNTED.c.name, "post_count": _COUNTED.c.post_count},
        rows=lambda page: select(_COUNTED).join(page, page.c.id == _COUNTED.c.id),
        item=lambda row: {"id": row[0], "name": row[1], "post_count": row[2]},
        search=Search.of(TagSearch, _COUNTED.c.id) if is_search else None,
    )
