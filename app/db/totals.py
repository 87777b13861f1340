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
_MAX_REMEMBERED = 1_000
# What other processes write is seen in the total, and in where later pages begin, after this
# long; on the first page, behind a cursor and in what a row holds, at once.
REMEMBER_SECONDS = 1.0
# A count that takes longer than this is remembered while others write, and for so long that
# counting takes at most this share of the time.
_DEAR_SECONDS = 0.05
_COUNTING_SHARE = 0.05
MAX_REMEMBER_SECONDS = 60.0
# At most so many counts run in the background at a time.
_MAX_BEHIND = 2
# A count that takes longer than this is still returned for so long after it expired, while it is
# counted anew in the background.
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

    def beside(self, skipped: int, found: int, *, is_last: bool) -> Total:
        """Return the total that goes with a page on which so many rows were found, one more than
        are shown unless it `is_last`: what was counted may be older."""
        if not is_last:
            return self if self.rows >= skipped + found else Total(skipped + found, False)
        if found or not skipped:
            return Total(skipped + found)
        return self if self.rows <= skipped else Total(skipped, self.is_exact)


@dataclass(slots=True)
class Remembered(Generic[R]):
    """A cached result, valid while the version stays, for a while; after a statement that took
    long, for longer, whatever the version."""

    version: int
    until: float
    found: R
    is_dear: bool = False
    late_until: float = 0.0  # returned until then, while it is counted anew
    took: float = 0.0

    @classmethod
    def briefly(cls, version: int, found: R) -> Remembered[R]:
        """Return what holds for REMEMBER_SECONDS at most."""
        return cls(version, time.monotonic() + REMEMBER_SECONDS, found)

    def holds(self, version: int) -> bool:
        return time.monotonic() < self.until and (self.is_dear or self.version == version)

    def may_be_late(self) -> bool:
        """Return whether it may be returned while it is counted anew."""
        return time.monotonic() < self.late_until


@dataclass(slots=True)
class _Counting:
    """A count under way, and how many wait for it."""

    task: asyncio.Task[tuple[int, ...]]
    version: int
    waiting: int = 0
    is_kept: bool = False  # goes on without waiters: an expired total is returned meanwhile


class Totals:
    """Counts, and remembers how many rows were found: for REMEMBER_SECONDS unless this process
    writes meanwhile, or for so long that counting takes no more than a twentieth of the time.
    A request for a count that is under way waits for it, unless an expired one that took long
    may still be returned."""

    def __init__(self, reader: QueryRunner) -> None:
        self._reader = reader
        self._known: dict[Hashable, Remembered[tuple[int, ...]]] = {}
        self._counting: dict[Hashable, _Counting] = {}

    async def counted(
        self, query: PreparedQuery, given: dict[str, Any], *, anew: bool = False
    ) -> tuple[int, ...]:
        """Return the one row of a query that counts, cached or counted; `anew` unless it takes
        long."""
        # By the arguments the query really uses: a count that is the same for all runs once.
        name = query, self._reader.arguments(query, given)
        known = self._known.get(name)
        is_known = known is not None and known.holds(self._reader.version(query))
        if known is not None and is_known and (known.is_dear or not anew):
            return known.found
        if known is None or not known.may_be_late():
            return await self._shared(name, self._under_way(name, query, given))
        if sum(each.is_kept for each in self._counting.values()) < _MAX_BEHIND:
            self._keep_on(name, self._under_way(name, query, given))
        return known.found

    def is_current(self, query: PreparedQuery, given: dict[str, Any]) -> bool:
        """Return whether there is a cached count that this process has not outdated, and that has
        not expired."""
        known = self._known.get((query, self._reader.arguments(query, given)))
        version = self._reader.version(query)
        return known is not None and known.version == version and known.holds(version)

    async def close(self) -> None:
        """End the counts that are under way."""
        tasks = [counting.task for counting in self._counting.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _under_way(self, name: Hashable, query: PreparedQuery, given: dict[str, Any]) -> _Counting:
        """Return the count that is under way, or begin one if that is older than a change."""
        counting, version = self._counting.get(name), self._reader.version(query)
        if counting is None or counting.version != version:
            task = asyncio.create_task(self._find_out(name, query, given))
            counting = self._counting[name] = _Counting(task, version)
        return counting

    def _keep_on(self, name: Hashable, counting: _Counting) -> None:
        """Count to the end, also when nobody waits for it."""
        if not counting.is_kept:
            counting.is_kept = True
            counting.waiting += 1
            counting.task.add_done_callback(partial(self._leave, name, counting))

    async def _shared(self, name: Hashable, counting: _Counting) -> tuple[int, ...]:
        """Wait for a count; cancel it when its last waiter leaves."""
        counting.waiting += 1
        try:
            return await asyncio.shield(counting.task)
        finally:
            self._leave(name, counting)

    def _leave(self, name: Hashable, counting: _Counting, *_: object) -> None:
        counting.waiting -= 1
        if not counting.waiting:
            counting.task.cancel()
            if self._counting.get(name) is counting:
                del self._counting[name]
            if counting.task.done() and not counting.task.cancelled():
                counting.task.exception()  # nobody may have waited for it

    async def _find_out(
        self, name: Hashable, query: PreparedQuery, given: dict[str, Any]
    ) -> tuple[int, ...]:
        version, began = self._reader.version(query), time.monotonic()
        [row] = await self._reader.rows(query, given)
        now = time.monotonic()
        took, found = now - began, tuple(map(int, row))
        kept, before = Remembered.briefly(version, found), self._known.get(name)
        # Twice in a row: once, it may have waited for something.
        if before is not None and min(took, before.took) > _DEAR_SECONDS:
            until = now + min(took / _COUNTING_SHARE, MAX_REMEMBER_SECONDS)
            late_until = until + _LATE_SECONDS if took > _LONG_SECONDS else 0.0
            kept = Remembered(version, until, found, is_dear=True, late_until=late_until)
        kept.took = took
        keep(self._known, name, kept)
        return found


def keep(memory: dict[Hashable, Remembered[R]], name: Hashable, known: Remembered[R]) -> None:
    if len(memory) >= _MAX_REMEMBERED:
        memory.clear()
    memory[name] = known
