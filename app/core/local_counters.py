"""Counters of one process: each over a window that expires, all of them in bounded memory."""

from __future__ import annotations

import heapq
import time
from dataclasses import dataclass
from itertools import islice

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

    When there are `max_keys`, the owner with the most keys loses those that were counted longest
    ago, a hundredth of all keys at a time. A key that limits a caller stays until its window ends.
    When all of them do, new keys with the same limit and window are counted together.
    """

    def __init__(self, max_keys: int = MAX_KEYS) -> None:
        self._max_keys = max_keys
        self._entries: dict[str, _Entry] = {}
        self._shared: dict[str, _Entry] = {}  # of windows there was no room for
        # Keys that limit no caller, by owner; those counted longest ago come first.
        self._evictable: dict[str, dict[str, None]] = {}
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
        keys = self._evictable.setdefault(entry.owner, {})
        if amount > 0 or is_limiting:
            keys.pop(window.key, None)
        if not is_limiting:
            keys[window.key] = None
        if not keys:
            del self._evictable[entry.owner]
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
        for index, place in (
            (self._evictable, entry.owner),
            (self._expiring, _slot(entry.expires_at)),
        ):
            keys = index.get(place, {})
            keys.pop(key, None)
            if not keys:
                index.pop(place, None)

    def _has_room(self, now: float) -> bool:
        """Whether a key may be added, after those that have expired or may be evicted are gone."""
        self._sweep(now, _SWEPT_AT_ONCE)
        if len(self._entries) >= self._max_keys:
            wanted = max(1, self._max_keys // 100)
            self._sweep(now, wanted)
            if len(self._entries) >= self._max_keys:
                self._evict(wanted)
        return len(self._entries) < self._max_keys

    def _sweep(self, now: float, at_most: int) -> None:
        present = _slot(now)
        while self._swept < present and at_most > 0:
            keys = self._expiring.get(self._swept)
            if keys:
                # From the end: of a dict that is taken from the front the way there grows.
                self._remove(next(reversed(keys)))
                at_most -= 1
            else:
                self._swept += 1

    def _evict(self, wanted: int) -> None:
        sizes = {owner: len(keys) for owner, keys in self._evictable.items()}
        for owner, count in _from_the_largest(sizes, wanted).items():
            for key in [*islice(self._evictable[owner], count)]:
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


def _slot(moment: float) -> int:
    return int(moment // _SLOT_SECONDS)


def _kind(window: Window) -> str:
    """What windows have in common that are counted together. Few: the memory is full."""
    return f"{window.limit} in {window.seconds.bit_length()}"


def _from_the_largest(sizes: dict[str, int], wanted: int) -> dict[str, int]:
    """Return how many keys each owner loses, so that the largest lose first, down to one size."""
    largest = heapq.nlargest(wanted, sizes.items(), key=lambda item: item[1])
    # Sorted, so a heap already; of equal owners the one that is here longest comes first.
    heap = [(-size, place, owner) for place, (owner, size) in enumerate(largest)]
    losses: dict[str, int] = {}
    for _ in range(min(wanted, sum(sizes.values()))):
        size, place, owner = heap[0]
        losses[owner] = losses.get(owner, 0) + 1
        heapq.heapreplace(heap, (size + 1, place, owner))
    return losses
