"""URLs of Redis: whether the client can make a connection from one, and the pool it makes."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlsplit

_MAX_CONNECTIONS = 20
# The client's own, if ours should not end it.
_SOCKET_SECONDS = 2.0
_PATH = re.compile(r"(/[0-9]*)?")


def is_redis_url(text: str) -> bool:
    """Return whether the client can make a connection from this, without connecting."""
    from redis.exceptions import RedisError  # noqa: PLC0415 costs half a second

    try:
        parts = urlsplit(text)
        if parts.scheme not in {"redis", "rediss"} or not parts.hostname:
            return False
        if not _PATH.fullmatch(parts.path):
            return False
        redis_pool(text).make_connection()
    # A port out of range is a ValueError, an unknown option in the query a TypeError, an unknown
    # protocol an error of the client's own.
    except (ValueError, TypeError, RedisError):
        return False
    return True


def redis_pool(url: str) -> Any:
    """Return a pool of connections to Redis that waits for nothing longer than a few seconds."""
    from redis.asyncio import BlockingConnectionPool  # noqa: PLC0415 costs half a second

    return BlockingConnectionPool.from_url(
        url,
        max_connections=_MAX_CONNECTIONS,
        timeout=_SOCKET_SECONDS,
        socket_timeout=_SOCKET_SECONDS,
        socket_connect_timeout=_SOCKET_SECONDS,
    )
