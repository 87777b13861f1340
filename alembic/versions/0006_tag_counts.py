"""The number of published posts that have each tag, kept beside it.

Revision: 0006, after 0005

Counts what is there, in batches of tags, of which the servers commit each: none keeps a lock that
the version before waits for. That version does not count what it changes while it still serves:
`scripts/purge` mends what is left of that. Can be run again after it was cut off in the middle.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import sqlalchemy as sa

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

INDEXES = {
    "ix_tags_post_count_id": ["post_count", "id"],
    "ix_tags_name_id_post_count": ["name", "id", "post_count"],
}
TAGS_BATCH = 500
LINKS_BATCH = 50_000

tags = sa.table("tags", sa.column("id", sa.BigInteger), sa.column("post_count", sa.Integer))
links = sa.table(
    "post_tags", sa.column("post_id", sa.BigInteger), sa.column("tag_id", sa.BigInteger)
)
posts = sa.table(
    "posts",
    sa.column("id", sa.BigInteger),
    sa.column("status", sa.String),
    sa.column("deleted_at", sa.DateTime),
)


def has_column() -> bool:
    return "post_count" in {each["name"] for each in sa.inspect(op.get_bind()).get_columns("tags")}


def has_index(name: str) -> bool:
    return name in {each["name"] for each in sa.inspect(op.get_bind()).get_indexes("tags")}


def upgrade() -> None:
    if not has_column():
        column = sa.Column("post_count", sa.Integer(), server_default="0", nullable=False)
        op.add_column("tags", column)
    for name, columns in INDEXES.items():
        if not has_index(name):
            op.create_index(name, "tags", columns)
    if op.get_bind().dialect.name == "sqlite":
        # One transaction for all migrations: their lock.
        fill()
        return
    with op.get_context().autocommit_block():
        fill()


def fill() -> None:
    after = 0
    while sizes := sizes_of_tags(after):
        for ids in in_groups(sizes):
            set_counts(ids)
        after = sizes[-1][0]


def sizes_of_tags(after: int) -> list[tuple[int, int]]:
    """The next tags by id, with how many posts of any kind each has."""
    size = sa.select(sa.func.count()).where(links.c.tag_id == tags.c.id).scalar_subquery()
    statement = sa.select(tags.c.id, size).where(tags.c.id > after)
    statement = statement.order_by(tags.c.id).limit(TAGS_BATCH)
    return [(tag_id, size) for tag_id, size in op.get_bind().execute(statement)]


def in_groups(sizes: Iterable[tuple[int, int]]) -> Iterator[list[int]]:
    """Tags that one statement can count in a moment; one with very many posts is alone."""
    group: list[int] = []
    total = 0
    for tag_id, size in sizes:
        if group and total + size > LINKS_BATCH:
            yield group
            group, total = [], 0
        group.append(tag_id)
        total += size
    yield group


def set_counts(ids: list[int]) -> None:
    """Set the counts that are wrong. Read first, as MariaDB locks what an UPDATE reads."""
    true = (
        sa.select(sa.func.count())
        .select_from(links.join(posts, posts.c.id == links.c.post_id))
        .where(
            links.c.tag_id == tags.c.id,
            posts.c.status == "published",
            posts.c.deleted_at.is_(None),
        )
        .scalar_subquery()
    )
    counted = sa.select(tags.c.id, tags.c.post_count, true).where(tags.c.id.in_(ids))
    for tag_id, kept, count in op.get_bind().execute(counted).all():
        if kept != count:
            op.execute(tags.update().where(tags.c.id == tag_id).values(post_count=count))


def downgrade() -> None:
    for name in INDEXES:
        if has_index(name):
            op.drop_index(name, "tags")
    if has_column():
        op.drop_column("tags", "post_count")
