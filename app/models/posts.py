"""Posts: what users write. Copy this module, and its namesakes, to add a resource."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from sqlalchemy import Computed, Index, String, Text
from sqlalchemy.dialects import mysql
from sqlalchemy.orm import Mapped, mapped_column, relationship

from app.models.base import (
    TABLE_OPTIONS,
    SoftDelete,
    TimestampedModel,
    Versioned,
    foreign_key,
    trash_index,
    utc_now,
)
from app.models.tags import Tag
from app.models.users import User

MAX_TITLE = 200
MAX_CONTENT = 100_000


class PostStatus(StrEnum):
    """Drafts are seen by their author; published posts by everyone."""

    draft = "draft"
    published = "published"


_COVERED = ("id", "deleted_at", "status", "author_id", "created_at")


def _listed_by(*columns: str, name: str | None = None) -> Index:
    """Return an index that covers a listing in this order and its filters, so that skipped rows
    are not read. Give a `name` where the columns' names together are too long for one."""
    return Index(name, *columns, *(each for each in _COVERED if each not in columns))


class Post(TimestampedModel, Versioned, SoftDelete):
    """A post, owned by its author; `version` counts its changes and is its ETag."""

    __tablename__ = "posts"
    __table_args__ = (
        _listed_by("created_at"),
        _listed_by("updated_at", name="ix_posts_by_updated_at"),
        _listed_by("published_order", name="ix_posts_by_published_order"),
        _listed_by("title", name="ix_posts_by_title"),
        _listed_by("author_id", "created_at"),
        trash_index(),
        TABLE_OPTIONS,
    )

    author_id: Mapped[int] = foreign_key(
        "users.id", ondelete="RESTRICT", deleted_with="deleted_with_author"
    )
    title: Mapped[str] = mapped_column(String(MAX_TITLE))
    content: Mapped[str] = mapped_column(
        Text().with_variant(mysql.MEDIUMTEXT(), "mysql", "mariadb")
    )
    status: Mapped[PostStatus] = mapped_column(String(16), default=PostStatus.draft)
    published_at: Mapped[datetime | None] = mapped_column(default=None)
    # Never null, so that drafts have a place in the order and a cursor can stand on it.
    # (MariaDB takes no NOT NULL on a generated column.)
    published_order: Mapped[datetime] = mapped_column(
        Computed("COALESCE(published_at, '1970-01-01 00:00:00.000000')", persisted=True),
        nullable=True,
    )
    version: Mapped[int] = mapped_column(default=1)
    # Whether it is in the trash because its author is: what restoring the author brings back.
    deleted_with_author: Mapped[bool] = mapped_column(default=False)

    author: Mapped[User] = relationship(lazy="raise")
    tag_rows: Mapped[list[Tag]] = relationship(
        secondary="post_tags", lazy="raise", order_by=Tag.name
    )

    @property
    def tags(self) -> list[str]:
        """Return the names of the post's tags, in order."""
        return sorted(tag.name for tag in self.tag_rows)

    def change(self, **values: object) -> None:
        """Set what differs; a post is published when its status says so."""
        status = values.get("status", self.status)
        if status != self.status:
            values["published_at"] = utc_now() if status == PostStatus.published else None
        super().change(**values)

    def soft_delete(self) -> None:
        self.change(deleted_at=utc_now())

    def restore(self) -> None:
        self.change(deleted_at=None, deleted_with_author=False)
