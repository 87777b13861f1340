"""Replies, which go to the trash with their post and with their author."""

from __future__ import annotations

from sqlalchemy import Index, String
from sqlalchemy.orm import Mapped, mapped_column

from app.models.base import (
    TABLE_OPTIONS,
    SoftDelete,
    TimestampedModel,
    foreign_key,
    trash_index,
    utc_now,
)

MAX_TEXT = 500


class Reply(TimestampedModel, SoftDelete):
    """A user's reply to a post."""

    __tablename__ = "replies"
    __table_args__ = (
        Index(None, "post_id", "created_at", "id"),
        Index(None, "author_id"),
        trash_index(),
        TABLE_OPTIONS,
    )

    post_id: Mapped[int] = foreign_key(
        "posts.id", ondelete="RESTRICT", deleted_with="deleted_with_post"
    )
    author_id: Mapped[int] = foreign_key(
        "users.id", ondelete="RESTRICT", deleted_with="deleted_with_author"
    )
    text: Mapped[str] = mapped_column(String(MAX_TEXT))
    deleted_with_post: Mapped[bool] = mapped_column(default=False)
    deleted_with_author: Mapped[bool] = mapped_column(default=False)

    def soft_delete(self) -> None:
        self.deleted_at = utc_now()
