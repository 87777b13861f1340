"""What is too old to be kept: deleted by `scripts/purge`, and every night where workers run.

Rows are deleted in batches, each in a short transaction of its own that is run again after a
deadlock. A purge that is killed leaves nothing half done that the next one does not finish.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar

from sqlalchemy.ext.asyncio import AsyncSession

from app.config import Settings
from app.db import retention
from app.db.engine import Database
from app.db.errors import is_outage
from app.db.failures import is_of_database
from app.db.references import few
from app.db.retention import Dependent, Kind, Limits, Rule
from app.models.base import Base, utc_now
from app.tasks import repair

T = TypeVar("T")
# Called for each batch: with the name of its rule, and how many rows it was.
Progress = Callable[[str, int], None]
# MariaDB makes a join of an IN with 1,000 values or more, and may then scan the table.
MAX_BATCH = 900
MIN_BATCH = 100
# A batch locks all of SQLite, and elsewhere only rows that are not in use.
_TARGET_SECONDS = {"sqlite": 0.04}
_OTHER_TARGET_SECONDS = 0.2
_MAX_REST_SECONDS = 0.1


@dataclass
class Purged:
    """How many rows were deleted for good, by name, how many were set right, and what the database
    refused."""

    counts: Counter[str] = field(default_factory=Counter)
    repaired: Counter[str] = field(default_factory=Counter)
    failures: dict[str, Exception] = field(default_factory=dict)


async def purge_deleted(
    database: Database, settings: Settings, progress: Progress = lambda *_: None
) -> Purged:
    """Delete for good what was in the trash longer than TRASH_DAYS, mails sent or given up longer
    than OUTBOX_DAYS ago, audit events older than AUDIT_DAYS, tags that no post has, and what has
    expired; set right counts of tags that are wrong, and index words that are missing. Harmless
    when run twice, also at the same time.

    What the database refuses of one rule is reported in `failures`, and does not stop the others.
    """
    now = utc_now()
    mails, events = (
        now - timedelta(days=days) if days else None
        for days in (settings.outbox_days, settings.audit_days)
    )
    limits = Limits(now - timedelta(days=settings.trash_days), mails, events)
    done = await delete_expired(database, retention.rules(), limits, progress)
    for name, repair_rows in repair.REPAIRS.items():
        with _noting_failure(done, name):
            done.repaired[name] = await repair_rows(database)
    return done


async def delete_expired(
    database: Database,
    rules: Sequence[Rule],
    limits: Limits,
    progress: Progress = lambda *_: None,
) -> Purged:
    """Delete what is due by some rules, one after the other."""
    done = Purged(Counter(dict.fromkeys(_names(rules), 0)))
    for rule in rules:
        with _noting_failure(done, rule.name):
            if rule.limit(limits) is not None:
                await _Purge(database, rule, limits, done.counts, progress).run()
    return done


def _names(rules: Sequence[Rule]) -> Iterator[str]:
    """Yield the names that rows are counted by, those of rows that go with others first."""
    for rule in rules:
        yield from (each.kind.name for each in retention.dependents(rule.model) if each.kind.name)
    yield from (rule.name for rule in rules)


@contextmanager
def _noting_failure(done: Purged, name: str) -> Iterator[None]:
    """Keep an error of the database for the end."""
    try:
        yield
    except Exception as error:
        if not (is_of_database(error) or is_outage(error)):
            raise
        done.failures.setdefault(name, error)


class _Pace:
    """How many rows at once: as many as can be deleted in a moment.

    Never fewer than MIN_BATCH: on a busy machine small batches take no less time.
    """

    def __init__(self, most: int, seconds: float) -> None:
        self.size = self._least = min(MIN_BATCH, most)
        self._most, self._seconds = most, seconds

    def parts(self, keys: Sequence[T]) -> Iterator[Sequence[T]]:
        """Cut keys into batches, each of the size of that moment."""
        start = 0
        while start < len(keys):
            end = start + self.size
            yield keys[start:end]
            start = end

    def note(self, seconds: float) -> None:
        """Make the next batch smaller after one that took long, larger after a short one."""
        if seconds > self._seconds:
            self.size = max(self.size // 2, self._least)
        elif seconds < self._seconds / 2:
            self.size = min(self.size * 2, self._most)


class _Purge:
    """One rule being followed."""

    def __init__(
        self,
        database: Database,
        rule: Rule,
        limits: Limits,
        counts: Counter[str],
        progress: Progress,
    ) -> None:
        self._database = database
        self._rule = rule
        self._limits = limits
        self._counts = counts
        self._progress = progress
        self._paces: dict[type[Base], _Pace] = {}

    async def run(self) -> None:
        """Look for rows and delete them until none is left but those that others lock."""
        start = None
        while True:
            async with self._database.begin(readonly=True) as session:
                found = await self._rule.look(session, self._limits, start)
            removed = 0
            for keys in self._pace(self._rule).parts(sorted(found.keys)):
                removed += await self._remove_due(keys)
            if found.next is None or (found.next == start and not removed):
                return
            start = found.next

    async def _remove_due(self, keys: Sequence[Any]) -> int:
        """Delete rows by the rule, and before them what belongs to them."""
        rule, limits = self._rule, self._limits
        if rule.is_marked_first:
            keys = await self._in_turn(
                rule, lambda session: rule.mark_purging(session, keys, limits)
            )
        return await self._remove(rule, keys)

    async def _remove(self, kind: Kind, keys: Sequence[Any]) -> int:
        for dependent in retention.dependents(kind.model):
            await self._delete_dependents(dependent, keys)
        removed = await self._in_turn(
            kind, lambda session: kind.delete(session, keys, self._limits)
        )
        if kind.name:
            self._counts[kind.name] += removed
        self._progress(self._rule.name, removed)
        return removed

    async def _delete_dependents(self, dependent: Dependent, parents: Sequence[Any]) -> None:
        """Delete all rows that point to some others."""
        found: list[Any] = []
        for some in few(parents):
            more = True
            while more:
                async with self._database.begin(readonly=True) as session:
                    found += (new := await retention.look_for(session, dependent, some))
                if more := len(new) == retention.LOOK:
                    await self._remove_all(dependent.kind, found)
                    found = []
        await self._remove_all(dependent.kind, found)

    async def _remove_all(self, kind: Kind, found: Sequence[Any]) -> None:
        for keys in self._pace(kind).parts(sorted(found)):
            await self._remove(kind, keys)

    async def _in_turn(self, kind: Kind, work: Callable[[AsyncSession], Awaitable[T]]) -> T:
        """Run one batch; then rest, so that requests get their turn."""
        began = time.perf_counter()
        done = await self._database.run(work)
        took = time.perf_counter() - began
        self._pace(kind).note(took)
        # No other writer gets into SQLite meanwhile; on a server, half as long leaves them enough.
        share = 1 if self._database.dialect == "sqlite" else 0.5
        await asyncio.sleep(min(took * share, _MAX_REST_SECONDS))
        return done

    def _pace(self, kind: Kind) -> _Pace:
        if kind.model not in self._paces:
            seconds = _TARGET_SECONDS.get(self._database.dialect, _OTHER_TARGET_SECONDS)
            self._paces[kind.model] = _Pace(MAX_BATCH, seconds)
        return self._paces[kind.model]
