"""The queue in front of the threads that hash passwords: bounded, and fair between networks.

A hash takes some 20 ms of a core, so a storm of logins would keep everybody waiting until their
deadlines. A request reserves a slot before it does any work; surplus is refused at once. The
rules, and what was measured: docs/adr/0028-hashing-queue.md.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from app.core.exceptions import Overloaded
from app.core.groups import block_of

R = TypeVar("R")
# What waits is so much work at most, or so many pieces of it.
BACKLOG_SECONDS = 1.2
LEAST_WAITING, MOST_WAITING = 20, 256
# A burst may take longer: half of it, from one network, is still answered before the deadline.
BURST, BURST_SECONDS = 128, 3.0
# Of one account from one network.
WAITING_OF_ACCOUNT = 10
# Requests that look something up before they wait, and those that wait, have slots.
LEAST_SLOTS = 256
# Surplus learns within a tenth of a second that it is; what has waited longer is kept.
DISPLACEABLE_SECONDS = 0.08
# What has waited for so long has every other turn, whoever else is there.
PATIENCE_SECONDS = 1.0
_MEMORY = 4_096
_SMOOTHING = 0.1


@dataclass(eq=False, slots=True)
class _Slot:
    """A request between its reservation and its end."""

    number: int
    network: str  # what is treated alike: an IPv4 address, or the /48 of an IPv6 address
    account: tuple[str, str | None]  # in the network, or in the /64 of it
    since: float
    work: Callable[[], Any] | None = None
    answer: asyncio.Future[Any] | None = None
    was_served: bool = False


_current: ContextVar[_Slot | None] = ContextVar("hashing_slot", default=None)


class HashingQueue:
    """Runs work in threads, and decides whose is next and whose is too much.

    Next is the network that was served longest ago, and in it the account that was; every other
    turn is that of whoever has waited for `PATIENCE_SECONDS`. Half of those who wait at most are
    of one network. Where there is no room left, the newest of the network with the most of them
    has to go: the newcomer, or one that a newcomer from elsewhere displaces.
    """

    def __init__(
        self,
        threads: ThreadPoolExecutor,
        *,
        count: int,
        seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Use `count` threads; a piece of work takes `seconds`, until it is known better."""
        self._threads = threads
        self._count = count
        self._seconds = seconds
        self._clock = clock
        self._numbers = itertools.count()
        self._slots: dict[_Slot, None] = {}
        self._slots_of: Counter[str] = Counter()
        self._waiting: dict[_Slot, None] = {}
        self._waiting_of: Counter[object] = Counter()
        self._running: list[Future[Any]] = []
        self._served: OrderedDict[object, float] = OrderedDict()
        self._is_for_the_oldest = False

    @property
    def capacity(self) -> int:
        """How many may wait, by how long the work took of late."""
        a_second = self._count / max(self._seconds, 0.001)
        burst = min(a_second * BURST_SECONDS, BURST)
        return int(min(max(a_second * BACKLOG_SECONDS, burst, LEAST_WAITING), MOST_WAITING))

    @contextmanager
    def reserve(self, network: str, account: str | None = None) -> Iterator[None]:
        """Hold a slot for a network (`network_of`) and the account that is asked about, existing
        or not; raise Overloaded when there is none. Within another reservation, keep that one."""
        outer = _current.get()
        if outer in self._slots:
            yield
            return
        slot = self._enter(network, account)
        _current.set(slot)
        try:
            yield
        finally:
            del self._slots[slot]
            _uncount(self._slots_of, slot.network)
            # Not by a token: a coroutine that was thrown away ends in a context of others.
            _current.set(outer)

    async def run(self, work: Callable[[], R]) -> R:
        """Run the work in a thread, in the slot that is reserved; raise Overloaded when it would
        wait for too long. Whoever is cancelled while waiting leaves the queue."""
        slot = _current.get()
        assert slot is not None, "reserve a slot first"
        answer: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        slot.work, slot.answer = work, answer
        self._join(slot)
        surplus = self._surplus(slot)
        if surplus is not None:
            self._quit(surplus)
            assert surplus.answer is not None
            if not surplus.answer.done():
                surplus.answer.set_exception(Overloaded())
        self._dispatch()
        try:
            return await answer
        finally:
            self._quit(slot)

    def _enter(self, network: str, account: str | None) -> _Slot:
        slot = _Slot(
            number=next(self._numbers),
            network=block_of(network) or network,
            account=(network, account),
            since=self._clock(),
        )
        slots = max(LEAST_SLOTS, 2 * self.capacity)
        if len(self._slots) >= slots or self._slots_of[slot.network] >= slots // 2:
            raise Overloaded
        # As if it waited already: what it would do first is for nothing otherwise.
        self._join(slot)
        surplus = self._surplus(slot)
        self._quit(slot)
        if surplus is slot:
            raise Overloaded
        self._slots[slot] = None
        self._slots_of[slot.network] += 1
        return slot

    def _join(self, slot: _Slot) -> None:
        self._waiting[slot] = None
        self._waiting_of.update((slot.network, slot.account))

    def _quit(self, slot: _Slot) -> None:
        if slot in self._waiting:
            del self._waiting[slot]
            _uncount(self._waiting_of, slot.network)
            _uncount(self._waiting_of, slot.account)

    def _surplus(self, newcomer: _Slot) -> _Slot | None:
        """Return which of those who wait has to go for the newcomer's sake, perhaps itself; None
        if there is room."""
        if newcomer.was_served:
            return None
        is_named = newcomer.account[1] is not None
        if is_named and self._waiting_of[newcomer.account] > WAITING_OF_ACCOUNT:
            return newcomer
        capacity = self.capacity
        has_its_share = self._waiting_of[newcomer.network] > capacity // 2
        if not has_its_share and len(self._waiting) <= capacity:
            return None
        rivals = (
            each
            for each in self._waiting
            if self._may_displace(newcomer, each)
            and (not has_its_share or each.network == newcomer.network)
        )
        return max(rivals, key=self._burden, default=newcomer)

    def _may_displace(self, newcomer: _Slot, other: _Slot) -> bool:
        if other.was_served:
            return False
        if other.since >= newcomer.since - DISPLACEABLE_SECONDS:
            return True
        # A network that has nobody here gets in, even at the cost of one who has waited.
        waiting = self._waiting_of
        return waiting[newcomer.network] == 1 and waiting[other.network] > 1

    def _burden(self, slot: _Slot) -> tuple[int, float, int, float, int]:
        """The most for who has had the most."""
        return (
            self._waiting_of[slot.network],
            self._served.get(slot.network, 0),
            self._waiting_of[slot.account],
            self._served.get(slot.account, 0),
            slot.number,
        )

    def _dispatch(self) -> None:
        self._running = [job for job in self._running if not job.done()]
        while self._waiting and len(self._running) < self._count:
            slot = self._next()
            self._quit(slot)
            self._begin(slot)

    def _next(self) -> _Slot:
        oldest = next(iter(self._waiting))
        self._is_for_the_oldest = not self._is_for_the_oldest
        if self._is_for_the_oldest and oldest.since <= self._clock() - PATIENCE_SECONDS:
            return oldest
        return min(self._waiting, key=self._turn)

    def _turn(self, slot: _Slot) -> tuple[float, float, int]:
        """The least for who is next."""
        served = self._served
        return (served.get(slot.network, 0), served.get(slot.account, 0), slot.number)

    def _begin(self, slot: _Slot) -> None:
        assert slot.work is not None
        assert slot.answer is not None
        if slot.answer.done():  # cancelled a moment ago
            return
        slot.was_served = True
        for key in (slot.network, slot.account):
            self._served[key] = self._clock()
            self._served.move_to_end(key)
        while len(self._served) > _MEMORY:
            self._served.popitem(last=False)
        job = self._threads.submit(_timed, slot.work)
        self._running.append(job)
        wrapped = asyncio.wrap_future(job, loop=slot.answer.get_loop())
        wrapped.add_done_callback(partial(self._finish, slot.answer))

    def _finish(self, answer: asyncio.Future[Any], done: asyncio.Future[tuple[Any, float]]) -> None:
        """Hand on what came of it; whoever was cancelled meanwhile wants it no more."""
        error = done.exception()
        if error is None:
            result, seconds = done.result()
            self._seconds += (seconds - self._seconds) * _SMOOTHING
            if not answer.done():
                answer.set_result(result)
        elif not answer.done():
            answer.set_exception(error)
        self._dispatch()


def _uncount(counter: Counter[Any], key: object) -> None:
    """Count one less, and remember no zeros."""
    counter[key] -= 1
    if not counter[key]:
        del counter[key]


def _timed(work: Callable[[], R]) -> tuple[R, float]:
    started = time.perf_counter()
    return work(), time.perf_counter() - started
