"""Poolers between the app and PostgreSQL: what a connection knows of one."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection

POOLED = (
    "a pooler stands in between: set DATABASE_DIRECT_URL to the server itself, or"
    " DATABASE_POOLER=session if it keeps a session for each client"
)


def is_lent(connection: Connection) -> bool:
    """Return whether a pooler lends the server's session to a connection for a transaction only, or
    may: nothing can be bound to it."""
    driven: Any = connection.connection.driver_connection
    return getattr(driven, "by_transaction", None) is not None


def is_pooled(connection: Connection) -> bool:
    """Return whether a pooler stands between a connection and the server, of whatever kind."""
    driven: Any = connection.connection.driver_connection
    return getattr(driven, "is_pooled", False)
