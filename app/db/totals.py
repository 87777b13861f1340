"""Totals of listings: counted once for concurrent requests, and cached for a while."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Hashable
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

from app.db.queries import PreparedQuery, QueryRunner

R = TypeVar("R")
_MAX_CACHED = 1_000
# What other processes write is seen in the total, and in where later pages begin, after this
# long; on the first page, behind a cursor and in what a row holds, at once.
TOTAL_CACHE_SECONDS = 1.0
# A count that takes longer than this is cached while others write, and for so long that
# counting takes at most this share of the time.
_COSTLY_SECONDS = 0.05
_COUNTING_SHARE = 0.05
MAX_TOTAL_CACHE_SECONDS = 60.0
# At most so many counts run in the background at a time.
_MAX_BEHIND = 2
# A count that takes longer than this is still returned for so long after it expired, while it is
# counted again in the background.
_LONG_SECONDS, _LATE_SECONDS = 0.1, 60.0


@dataclass(frozen=True)
class Total:
    """How many rows a listing has: as many as `rows`, or at least, if it is not exact."""

    rows: int
    is_exact: bool = True

    def fits(self, skipped: int, found: int, size: int) -> bool:
        """Return whether the number of rows found behind the skipped ones, at most one more than a
        page of this size has, agrees with this total."""
        return found == max(0, min(size + 1, self.rows - skipped))

    def reconciled_with_page(self, skipped: int, found: int, *, is_last: bool) -> Total:
        """Return the total that goes with a page on which so many rows were found, one more than
        are shown unless it `is_last`: what was counted may be older."""
        if not is_last:
            return self if self.rows >= skipped + found else Total(skipped + found, False)
        if found or not skipped:
            return Total(skipped + found)
        return self if self.rows <= skipped else Total(skipped, self.is_exact)


@dataclass(slots=True)
class CacheEntry(Generic[R]):
    """A cached result, valid while the version stays, for a while; after a statement that took
    long, for longer, whatever the version."""

    version: int
    until: float
    value: R
    is_costly: bool = False
    late_until: float = 0.0  # returned until then, while it is counted again
    took: float = 0.0

    @classmethod
    def briefly(cls, version: int, value: R) -> CacheEntry[R]:
        """Return what holds for TOTAL_CACHE_SECONDS at most."""
        return cls(version, time.monotonic() + TOTAL_CACHE_SECONDS, value)

    def holds(self, version: int) -> bool:
        return time.monotonic() < self.until and (self.is_costly or self.version == version)

    def may_be_late(self) -> bool:
        """Return whether it may be returned while it is counted again."""
        return time.monotonic() < self.late_until


@dataclass(slots=True)
class _Counting:
    """A count under way, and how many wait for it."""

    task: asyncio.Task[tuple[int, ...]]
    version: int
    waiting: int = 0
    is_kept: bool = False  # goes on without waiters: an expired total is returned meanwhile


class Totals:
    """Counts rows, and caches the counts: for TOTAL_CACHE_SECONDS unless this process writes
    meanwhile, or for so long that counting takes no more than a twentieth of the time.
    A request for a count that is under way waits for it, unless an expired one that took long
    may still be returned."""

    def __init__(self, reader: QueryRunner) -> None:
        self._reader = reader
        self._entries: dict[Hashable, CacheEntry[tuple[int, ...]]] = {}
        self._counting: dict[Hashable, _Counting] = {}

    async def count(
        self, query: PreparedQuery, parameters: dict[str, Any], *, refresh: bool = False
    ) -> tuple[int, ...]:
        """Return the one row of a query that counts, cached or counted; with `refresh`, cached
        only if the count takes long."""
        # By the arguments the query really uses: a count that is the same for all runs once.
        cache_key = query, self._reader.arguments(query, parameters)
        entry = self._entries.get(cache_key)
        is_valid = entry is not None and entry.holds(self._reader.version(query))
        if entry is not None and is_valid and (entry.is_costly or not refresh):
            return entry.value
        if entry is None or not entry.may_be_late():
            return await self._shared(cache_key, self._under_way(cache_key, query, parameters))
        if sum(each.is_kept for each in self._counting.values()) < _MAX_BEHIND:
            self._keep_on(cache_key, self._under_way(cache_key, query, parameters))
        return entry.value

    def is_current(self, query: PreparedQuery, parameters: dict[str, Any]) -> bool:
        """Return whether there is a cached count that this process has not outdated, and that has
        not expired."""
        entry = self._entries.get((query, self._reader.arguments(query, parameters)))
        version = self._reader.version(query)
        return entry is not None and entry.version == version and entry.holds(version)

    async def close(self) -> None:
        """End the counts that are under way."""
        tasks = [counting.task for counting in self._counting.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _under_way(
        self, cache_key: Hashable, query: PreparedQuery, parameters: dict[str, Any]
    ) -> _Counting:
        """Return the count that is under way, or begin one if that is older than a change."""
        counting, version = self._counting.get(cache_key), self._reader.version(query)
        if counting is None or counting.version != version:
            task = asyncio.create_task(self._find_out(cache_key, query, parameters))
            counting = self._counting[cache_key] = _Counting(task, version)
        return counting

    def _keep_on(self, cache_key: Hashable, counting: _Counting) -> None:
        """Count to the end, also when nobody waits for it."""
        if not counting.is_kept:
            counting.is_kept = True
            counting.waiting += 1
            counting.task.add_done_callback(partial(self._leave, cache_key, counting))

    async def _shared(self, cache_key: Hashable, counting: _Counting) -> tuple[int, ...]:
        """Wait for a count; cancel it when its last waiter leaves."""
        counting.waiting += 1
        try:
            return await asyncio.shield(counting.task)
        finally:
            self._leave(cache_key, counting)

    def _leave(self, cache_key: Hashable, counting: _Counting, *_: object) -> None:
        counting.waiting -= 1
        if not counting.waiting:
            counting.task.cancel()
            if self._counting.get(cache_key) is counting:
                del self._counting[cache_key]
            if counting.task.done() and not counting.task.cancelled():
                counting.task.exception()  # nobody may have waited for it

    async def _find_out(
        self, cache_key: Hashable, query: PreparedQuery, parameters: dict[str, Any]
    ) -> tuple[int, ...]:
        version, began = self._reader.version(query), time.monotonic()
        [row] = await self._reader.rows(query, parameters)
        now = time.monotonic()
        took, value = now - began, tuple(map(int, row))
        entry, before = CacheEntry.briefly(version, value), self._entries.get(cache_key)
        # Twice in a row: once, it may have waited for something.
        if before is not None and min(took, before.took) > _COSTLY_SECONDS:
            until = now + min(took / _COUNTING_SHARE, MAX_TOTAL_CACHE_SECONDS)
            late_until = until + _LATE_SECONDS if took > _LONG_SECONDS else 0.0
            entry = CacheEntry(version, until, value, is_costly=True, late_until=late_until)
        entry.took = took
        put(self._entries, cache_key, entry)
        return value


def put(cache: dict[Hashable, CacheEntry[R]], cache_key: Hashable, entry: CacheEntry[R]) -> None:
    if len(cache) >= _MAX_CACHED:
        cache.clear()
    cache[cache_key] = entry
