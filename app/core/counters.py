"""Counters that expire: in this process, and in Redis where several processes count together."""

from __future__ import annotations

import asyncio
import logging
import math
import re
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, cast
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from limits.aio.storage import MemoryStorage, RedisStorage, Storage

T = TypeVar("T")
log = logging.getLogger("app.counters")
REDIS_SECONDS = 0.2
# After Redis did not answer it is left alone for this long.
REDIS_PAUSE_SECONDS = 5
_WAITS = 10
_REDIS_CONNECTIONS = 20
# The client's own, if ours should not end it.
_SOCKET_SECONDS = 2.0
_REDIS_PATH = re.compile(r"(/[0-9]*)?")
# The library looks through all keys of a store at every step: many small ones, so that it is few.
_SHARDS = 64
_MAX_KEYS_OF_SHARD = 1_000


class Counters:
    """Counts by key, each over a window that begins with the first step and then expires.

    With `redis_url` the counts of Redis decide. They are kept here as well, so that while Redis
    does not answer this process goes on with what it has counted so far. Nothing ever raises.
    """

    def __init__(self, *, prefix: str, redis_url: str | None = None) -> None:
        # Imported when one is made: the library costs 0.2 s, and the Redis client twice as much.
        from limits.aio.storage import MemoryStorage  # noqa: PLC0415 see above

        self._new_shard = MemoryStorage
        self._shards = [MemoryStorage() for _ in range(_SHARDS)]
        self._pool: Any = _pool(redis_url) if redis_url else None
        self._redis = _shared_storage(redis_url, prefix, self._pool) if redis_url else None
        self._is_down = False
        self._skip_until = 0.0

    async def add(self, windows: Mapping[str, int], amount: int = 1) -> list[int]:
        """Count `amount` for each key, over so many seconds; the counts afterwards.

        -1 takes a step back, never below 0.
        """
        if not windows:
            return []
        here = [
            await _never_below_0(
                self._shard(key), key, seconds, await self._shard(key).incr(key, seconds, amount)
            )
            for key, seconds in windows.items()
        ]
        return await self._ask(lambda redis: _add_all(redis, windows, amount), here)

    async def count(self, keys: Sequence[str]) -> list[int]:
        """How much was counted in the present window of each key; at least one is asked for."""
        here = [await self._shard(key).get(key) for key in keys]
        return await self._ask(lambda redis: _count_all(redis, keys), here)

    async def seconds_left(self, key: str) -> int:
        """Until the present window is over; at least 1."""
        here = await self._shard(key).get_expiry(key)
        expires_at = await self._ask(lambda redis: redis.get_expiry(key), here)
        return max(1, math.ceil(expires_at - time.time()))

    async def close(self) -> None:
        """Hang up; of no use afterwards."""
        if self._pool is not None:
            await self._pool.aclose()

    def _shard(self, key: str) -> MemoryStorage:
        place = hash(key) % _SHARDS
        # Rather forget some than fill the memory.
        if len(self._shards[place].storage) >= _MAX_KEYS_OF_SHARD:
            self._shards[place] = self._new_shard()
        return self._shards[place]

    async def _ask(self, question: Callable[[RedisStorage], Awaitable[T]], here: T) -> T:
        """Redis's answer, or the one from here while there is none."""
        if self._redis is None or not self._try_redis():
            return here
        try:
            answer = await _in_time(question(self._redis))
        # What the client raises: its own errors, those of sockets, of TLS and of the protocol.
        except Exception as error:  # noqa: BLE001 see above
            self._skip_until = time.monotonic() + REDIS_PAUSE_SECONDS
            if not self._is_down:
                self._is_down = True
                log.warning(
                    "redis does not answer, limits count in this process only",
                    extra={"error": type(error).__name__},
                )
            return here
        if self._is_down:
            self._is_down = False
            self._skip_until = 0.0
            log.info("redis answers again")
        return answer

    def _try_redis(self) -> bool:
        now = time.monotonic()
        if now < self._skip_until:
            return False
        if self._is_down:
            # One of us finds out whether it is back; the others need not wait with it.
            self._skip_until = now + REDIS_PAUSE_SECONDS
        return True


def is_redis_url(text: str) -> bool:
    """Whether the client can make a connection from this, without connecting."""
    from redis.exceptions import RedisError  # noqa: PLC0415 costs half a second

    try:
        parts = urlsplit(text)
        if parts.scheme not in {"redis", "rediss"} or not parts.hostname:
            return False
        if not _REDIS_PATH.fullmatch(parts.path):
            return False
        _pool(text).make_connection()
    # A port out of range is a ValueError, an option in the query that nobody knows a TypeError, a
    # protocol that nobody speaks an error of the client's own.
    except (ValueError, TypeError, RedisError):
        return False
    return True


def _pool(url: str) -> Any:
    from redis.asyncio import BlockingConnectionPool  # noqa: PLC0415 costs half a second

    return BlockingConnectionPool.from_url(
        url,
        max_connections=_REDIS_CONNECTIONS,
        timeout=_SOCKET_SECONDS,
        socket_timeout=_SOCKET_SECONDS,
        socket_connect_timeout=_SOCKET_SECONDS,
    )


def _shared_storage(url: str, prefix: str, pool: Any) -> RedisStorage:
    from limits.storage import storage_from_string  # noqa: PLC0415 see Counters

    storage = storage_from_string(
        f"async+{url}", implementation="redispy", key_prefix=prefix, connection_pool=pool
    )
    return cast("RedisStorage", storage)


async def _add_all(redis: RedisStorage, windows: Mapping[str, int], amount: int) -> list[int]:
    """The library's own step for each key, all of them in one message."""
    bridge: Any = redis.bridge
    async with bridge.get_connection().pipeline(transaction=False) as pipe:
        for key, seconds in windows.items():
            await bridge.lua_incr_expire([bridge.prefixed_key(key)], [seconds, amount], client=pipe)
        counts = await pipe.execute()
    return [
        await _never_below_0(redis, key, seconds, count)
        for (key, seconds), count in zip(windows.items(), counts, strict=True)
    ]


async def _count_all(redis: RedisStorage, keys: Sequence[str]) -> list[int]:
    bridge: Any = redis.bridge
    counts = await bridge.get_connection().mget(map(bridge.prefixed_key, keys))
    return [int(count or 0) for count in counts]


async def _never_below_0(storage: Storage, key: str, seconds: int, count: int) -> int:
    # A step back that came after its window was over would be one too many in the next.
    return count if count >= 0 else await storage.incr(key, seconds, -count)


async def _in_time(question: Awaitable[T]) -> T:
    """The answer, or TimeoutError after REDIS_SECONDS.

    In short waits: while this process is too busy to look, they take longer together. Under a
    flood a clock would take Redis for dead that has answered long ago.
    """
    answer = asyncio.ensure_future(question)
    try:
        for _ in range(_WAITS):
            await asyncio.wait({answer}, timeout=REDIS_SECONDS / _WAITS)
            if answer.done():
                return answer.result()
        raise TimeoutError
    finally:
        answer.cancel()
