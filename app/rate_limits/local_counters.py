"""Counters of one process: each over a window that expires, all of them in bounded memory."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from itertools import chain, islice
from typing import TypeVar

T = TypeVar("T")
MAX_KEYS = 100_000
_SLOT_SECONDS = 60
_SWEPT_AT_ONCE = 4


@dataclass(slots=True)
class Window:
    """What is counted under a key, from the first step on, for so many seconds.

    A count of `limit` or more limits a caller (0: no count does). `owner` is the network whose
    share of the memory the key takes.
    """

    key: str
    seconds: int
    limit: int = 0
    owner: str = ""


@dataclass(slots=True)
class _Entry:
    count: int
    limit: int
    owner: str
    expires_at: float


class LocalCounters:
    """Counts by key. A key exists while its count is above 0 and its window is not over.

    When there are `max_keys`, a hundredth of them is evicted: the owner with the most keys
    loses those without a limit first, then those below theirs, and of these the ones that were
    counted longest ago. A key that limits a caller stays until its window ends. When all of them
    do, new keys with the same limit and window are counted together.
    """

    def __init__(self, max_keys: int = MAX_KEYS) -> None:
        self._max_keys = max_keys
        self._entries: dict[str, _Entry] = {}
        self._shared: dict[str, _Entry] = {}  # of windows there was no room for
        # Keys that limit no caller, by owner; those counted longest ago come first.
        self._without_limit: dict[str, dict[str, None]] = {}
        self._below_limit: dict[str, dict[str, None]] = {}
        self._expiring: dict[int, dict[str, None]] = {}  # keys by the minute in which they do
        self._swept = _slot(time.monotonic())

    def __len__(self) -> int:
        return len(self._entries) + len(self._shared)

    def add(self, window: Window, amount: int = 1) -> int:
        """Count `amount` and return the count; -1 takes a step back, never below 0."""
        now = time.monotonic()
        entry = self._live(window.key, now)
        if entry is None and amount > 0 and self._has_room(now):
            entry = self._begin(window, now)
        if entry is None:
            return self._add_shared(window, amount, now)
        entry.count += amount
        if entry.count <= 0:
            self._remove(window.key)
            return 0
        is_limiting = 0 < entry.limit <= entry.count
        evictable = self._evictable(entry)
        if amount > 0 or is_limiting:
            _discard(evictable, entry.owner, window.key)
        if not is_limiting:
            evictable.setdefault(entry.owner, {})[window.key] = None
        return entry.count

    def count(self, key: str) -> int:
        """Return the count in the present window."""
        entry = self._live(key, time.monotonic())
        return entry.count if entry else 0

    def seconds_left(self, window: Window) -> float:
        """Return the time until the window ends; 0 if there is none."""
        now = time.monotonic()
        entry = self._live(window.key, now) or self._shared.get(_kind(window))
        return entry.expires_at - now if entry else 0.0

    def _live(self, key: str, now: float) -> _Entry | None:
        entry = self._entries.get(key)
        if entry is not None and entry.expires_at <= now:
            self._remove(key)
            return None
        return entry

    def _begin(self, window: Window, now: float) -> _Entry:
        entry = _Entry(0, window.limit, window.owner, now + window.seconds)
        self._entries[window.key] = entry
        self._expiring.setdefault(_slot(entry.expires_at), {})[window.key] = None
        return entry

    def _remove(self, key: str) -> None:
        entry = self._entries.pop(key)
        _discard(self._evictable(entry), entry.owner, key)
        _discard(self._expiring, _slot(entry.expires_at), key)

    def _evictable(self, entry: _Entry) -> dict[str, dict[str, None]]:
        return self._below_limit if entry.limit else self._without_limit

    def _has_room(self, now: float) -> bool:
        """Return whether a key may be added, after removing what has expired or may be evicted."""
        self._sweep(now, _SWEPT_AT_ONCE)
        if len(self._entries) >= self._max_keys:
            self._evict(max(1, self._max_keys // 100))
        return len(self._entries) < self._max_keys

    def _sweep(self, now: float, at_most: int) -> None:
        present = _slot(now)
        while self._swept < present and at_most > 0:
            keys = self._expiring.get(self._swept)
            if keys:
                self._remove(keys.popitem()[0])
                at_most -= 1
            else:
                self._expiring.pop(self._swept, None)
                self._swept += 1

    def _evict(self, wanted: int) -> None:
        indexes = (self._without_limit, self._below_limit)
        sizes: Counter[str] = Counter()
        for index in indexes:
            sizes.update({owner: len(keys) for owner, keys in index.items()})
        for owner, count in _from_the_largest(sizes, wanted).items():
            keys = chain.from_iterable(index.get(owner, ()) for index in indexes)
            for key in [*islice(keys, count)]:
                self._remove(key)

    def _add_shared(self, window: Window, amount: int, now: float) -> int:
        entry = self._shared.get(_kind(window))
        if entry is None or entry.expires_at <= now:
            if amount <= 0:
                return 0
            entry = _Entry(0, window.limit, "", now + window.seconds)
            self._shared[_kind(window)] = entry
        entry.count = max(0, entry.count + amount)
        return entry.count


def _discard(index: dict[T, dict[str, None]], place: T, key: str) -> None:
    keys = index.get(place)
    if keys is not None and key in keys:
        del keys[key]
        if not keys:
            del index[place]


def _slot(moment: float) -> int:
    return int(moment // _SLOT_SECONDS)


def _kind(window: Window) -> str:
    """Return what windows have in common that are counted together. Few: the memory is full."""
    return f"{window.limit} in {window.seconds.bit_length()}"


def _from_the_largest(sizes: dict[str, int], wanted: int) -> dict[str, int]:
    """Return how many keys each owner loses, so that the largest lose first, down to one size."""
    how_many = Counter(sizes.values())
    level = max(how_many, default=0)
    # Lowering the level by one takes a key of each owner above it.
    above = 0
    while level and (above := above + how_many[level]) <= wanted:
        wanted -= above
        level -= 1
    losses = {}
    for owner, size in sizes.items():
        # Of those at the level itself, the owners that are here longest lose one more.
        is_first = size >= level > 0 and wanted > 0
        wanted -= is_first
        if (lost := size - level + is_first) > 0:
            losses[owner] = lost
    return losses
