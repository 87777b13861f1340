"""Tags: created by use, shared by posts."""

from __future__ import annotations

from sqlalchemy import Index, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from app.models.base import TABLE_OPTIONS, Base, BigId, exact_text, foreign_key

MAX_TAG = 50
MAX_TAGS = 20  # of one post


class Tag(Base):
    """A tag's normalised name, and how many live, published posts have it.

    `post_count` is only changed by `crud/tags.py`, in the transaction that makes it true.
    """

    __tablename__ = "tags"
    __table_args__ = (
        UniqueConstraint("name"),
        Index(None, "post_count", "id"),
        # With the count: MariaDB would sort all tags that have one for each page.
        Index(None, "name", "id", "post_count"),
        TABLE_OPTIONS,
    )

    id: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=True)
    name: Mapped[str] = mapped_column(exact_text(MAX_TAG))
    post_count: Mapped[int] = mapped_column(default=0, server_default="0")


class PostTag(Base):
    """Which post has which tag."""

    __tablename__ = "post_tags"
    __table_args__ = (Index(None, "tag_id", "post_id"), TABLE_OPTIONS)

    post_id: Mapped[int] = foreign_key("posts.id", ondelete="CASCADE", primary_key=True)
    tag_id: Mapped[int] = foreign_key("tags.id", ondelete="CASCADE", primary_key=True)
