"""The tables. Importing this package registers all of them."""

from app.models import (
    audit,
    idempotency,
    one_time_tokens,
    outbox,
    posts,
    roles,
    search,
    sessions,
    tags,
    users,
)
from app.models.base import Base

__all__ = [
    "Base",
    "audit",
    "idempotency",
    "one_time_tokens",
    "outbox",
    "posts",
    "roles",
    "search",
    "sessions",
    "tags",
    "users",
]
