"""The counts of tags as they are kept, and as they have to be."""

from __future__ import annotations

from sqlalchemy import text

from app.db.engine import Database

_KEPT = "SELECT name, post_count FROM tags"
_TRUE = (
    "SELECT tags.name, count(posts.id) AS post_count FROM tags"
    " LEFT JOIN post_tags ON post_tags.tag_id = tags.id"
    " LEFT JOIN posts ON posts.id = post_tags.post_id"
    " AND posts.status = 'published' AND posts.deleted_at IS NULL GROUP BY tags.name"
)


async def kept(database: Database) -> dict[str, int]:
    """What stands beside each tag, also where it is 0."""
    return await _counts(database, _KEPT)


async def recounted(database: Database) -> dict[str, int]:
    """How many live, published posts have each tag."""
    return await _counts(database, _TRUE)


async def assert_right(database: Database) -> dict[str, int]:
    """Every count is what counting finds; return them."""
    found = await kept(database)
    assert found == await recounted(database)
    return found


async def _counts(database: Database, statement: str) -> dict[str, int]:
    async with database.begin(readonly=True) as session:
        found = await session.execute(text(statement))
        return {row.name: row.post_count for row in found}
