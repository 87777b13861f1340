"""The tables. Importing this package registers all of them."""

from app.models import outbox, posts, roles, sessions, tags, users
from app.models.base import Base

__all__ = ["Base", "outbox", "posts", "roles", "sessions", "tags", "users"]
