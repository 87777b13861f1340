"""Counters that expire: in this process, and in Redis where several processes count together."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TYPE_CHECKING, TypeVar

from app.core.redis_urls import redis_pool
from app.rate_limits.local_counters import LocalCounters, Window

if TYPE_CHECKING:
    from redis.asyncio import Redis
    from redis.commands.core import AsyncScript

T = TypeVar("T")
log = logging.getLogger("app.counters")
REDIS_SECONDS = 0.2
# After Redis did not answer it is left alone for this long.
REDIS_PAUSE_SECONDS = 5
_WAITS = 10
# One step for each key. What is back at 0 is deleted, in the same step: no count comes in between.
_ADD = """
local counts = {}
for place, key in ipairs(KEYS) do
  local count = redis.call("INCRBY", key, ARGV[1])
  if count <= 0 then
    redis.call("DEL", key)
    count = 0
  elseif count == tonumber(ARGV[1]) then
    redis.call("EXPIRE", key, ARGV[place + 1])
  end
  counts[place] = count
end
return counts
"""


class Counters:
    """Counts by key, each over a window that begins with the first step and then expires.

    With `redis_url` the counts of Redis decide. They are kept here as well, so that while Redis
    does not answer this process goes on with what it has counted so far. Nothing ever raises.
    """

    def __init__(self, *, prefix: str, redis_url: str | None = None) -> None:
        self.here = LocalCounters()
        self._prefix = prefix
        self._redis: Redis | None = None
        self._script: AsyncScript | None = None
        if redis_url:
            self._redis, self._script = _connect(redis_url)
        self._is_down = False
        self._skip_until = 0.0

    async def add(self, windows: Sequence[Window], amount: int = 1) -> list[int]:
        """Count `amount` for each window and return the counts; -1 takes a step back, never
        below 0."""
        here = [self.here.add(window, amount) for window in windows]
        script = self._script
        if script is None or not windows:
            return here
        keys = self._names(window.key for window in windows)
        arguments = [amount, *(window.seconds for window in windows)]
        return await self._ask(lambda: script(keys, arguments), here)

    async def count(self, keys: Sequence[str]) -> list[int]:
        """Return how much was counted in the present window of each key (at least one)."""
        here = [self.here.count(key) for key in keys]
        redis = self._redis
        if redis is None:
            return here
        counts = await self._ask(lambda: redis.mget(self._names(keys)), here)
        return [int(count or 0) for count in counts]

    async def seconds_left(self, window: Window) -> int:
        """Return the time until the present window is over, at least 1."""
        left = self.here.seconds_left(window)
        redis = self._redis
        if redis is not None:
            (name,) = self._names([window.key])
            left = await self._ask(lambda: _seconds_left(redis, name), left)
        return max(1, math.ceil(left))

    async def close(self) -> None:
        """Hang up; of no use afterwards."""
        if self._redis is not None:
            await self._redis.connection_pool.aclose()

    def _names(self, keys: Iterable[str]) -> list[str]:
        return [f"{self._prefix}:{key}" for key in keys]

    async def _ask(self, question: Callable[[], Awaitable[T]], here: T) -> T:
        """Return Redis's answer, or the one from here while there is none."""
        if not self._try_redis():
            return here
        try:
            answer = await _in_time(question())
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


def _connect(url: str) -> tuple[Redis, AsyncScript]:
    from redis.asyncio import Redis  # noqa: PLC0415 costs half a second

    redis = Redis(connection_pool=redis_pool(url))
    return redis, redis.register_script(_ADD)


async def _seconds_left(redis: Redis, name: str) -> float:
    milliseconds: int = await redis.pttl(name)
    return milliseconds / 1_000


async def _in_time(question: Awaitable[T]) -> T:
    """Return the answer; raise TimeoutError after REDIS_SECONDS.

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
