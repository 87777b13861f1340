"""The queue in front of the threads that hash passwords: bounded, and fair between networks.

A hash takes some 20 ms of a core, so a storm of logins would keep everybody waiting until their
deadlines. A request takes its turn before it does any work; surplus is refused at once. The
rules, and what was measured: docs/adr/0028-hashing-queue.md.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TypeVar

from app.core.exceptions import Overloaded
from app.core.groups import block_of

R = TypeVar("R")
# What waits is so much work at most, or so many pieces of it.
BACKLOG_SECONDS = 1.2
LEAST_WAITING, MOST_WAITING = 20, 256
# A burst may take longer: half of it, from one network, is still answered before the deadline.
BURST, BURST_SECONDS = 128, 3.0
# Of one account from one network: most of those are refused by the limits in their turn, quickly.
WAITING_OF_ACCOUNT = 32
# So many for each thread have their turn at once: while one hashes, others look up and write.
TURNS_PER_THREAD = 4
# Surplus learns within a tenth of a second that it is; what has waited longer is kept.
DISPLACEABLE_SECONDS = 0.08
# A request that has waited for so long gets every other turn.
PATIENCE_SECONDS = 1.0
_MEMORY = 4_096
_SMOOTHING = 0.1


@dataclass(eq=False, slots=True)
class _Request:
    """A request from its arrival to the end of its turn."""

    number: int
    network: str  # what is treated alike: an IPv4 address, or the /48 of an IPv6 address
    account: tuple[str, str | None]  # in the network, or in the /64 of it
    since: float  # its arrival, then the beginning of its turn
    turn: asyncio.Future[bool]  # whether it is given


_current: ContextVar[_Request | None] = ContextVar("hashing_request", default=None)


class HashingQueue:
    """Decides who has their turn to hash, whose is next, and whose is too much.

    Next is the network that was served longest ago, and in it the account that was; every other
    turn goes to the oldest request that has waited for `PATIENCE_SECONDS`. At most half of the
    waiting requests are of one network. Without room, the newest request of the network with the
    most of them is refused: the entering one, or a waiting one that it displaces.
    """

    def __init__(
        self,
        threads: ThreadPoolExecutor,
        *,
        count: int,
        seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Use `count` threads; a hash takes `seconds`, until turns are known better."""
        self._threads = threads
        self._turns = count * TURNS_PER_THREAD
        # From one turn's end to the next one's, while others wait.
        self._seconds = seconds / count
        self._clock = clock
        self._numbers = itertools.count()
        self._waiting: dict[_Request, None] = {}
        self._waiting_of: Counter[object] = Counter()
        self._having_turns: set[_Request] = set()
        self._served: OrderedDict[object, float] = OrderedDict()
        self._is_for_the_oldest = False

    @property
    def capacity(self) -> int:
        """Return how many may wait, by how long recent turns took: most of those whom the rate
        limits refuse end before they hash."""
        a_second = 1 / max(self._seconds, 0.0005)
        burst = min(a_second * BURST_SECONDS, BURST)
        return int(min(max(a_second * BACKLOG_SECONDS, burst, LEAST_WAITING), MOST_WAITING))

    @asynccontextmanager
    async def turn(self, network: str, account: str | None = None) -> AsyncIterator[None]:
        """Wait for a turn of a network (`network_of`) and the account that is asked about,
        existing or not, and hold it; raise Overloaded instead of waiting for too long. Within
        another turn, keep that one. A request that is cancelled while waiting leaves the
        queue."""
        outer = _current.get()
        if outer in self._having_turns:
            yield
            return
        request = _Request(
            number=next(self._numbers),
            network=block_of(network) or network,
            account=(network, account),
            since=self._clock(),
            turn=asyncio.get_running_loop().create_future(),
        )
        try:
            self._enter(request)
            if not await request.turn:
                raise Overloaded
            _current.set(request)
            yield
        finally:
            # Not by a token: a coroutine that was thrown away ends in a context of others.
            _current.set(outer)
            self._leave(request)

    async def run(self, work: Callable[[], R]) -> R:
        """Run the work in a thread, in the turn that is held."""
        assert _current.get() in self._having_turns, "wait for a turn first"
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    def _leave(self, request: _Request) -> None:
        self._quit(request)
        if request in self._having_turns:
            self._having_turns.discard(request)
            if self._waiting:
                seconds = (self._clock() - request.since) / self._turns
                self._seconds += (seconds - self._seconds) * _SMOOTHING
        self._give_turns()

    def _enter(self, entering: _Request) -> None:
        self._join(entering)
        surplus = self._surplus(entering)
        if surplus is entering:
            raise Overloaded
        if surplus is not None:
            self._quit(surplus)
            if not surplus.turn.done():  # cancelled a moment ago
                surplus.turn.set_result(False)
        self._give_turns()

    def _join(self, request: _Request) -> None:
        self._waiting[request] = None
        self._waiting_of.update((request.network, request.account))

    def _quit(self, request: _Request) -> None:
        if request in self._waiting:
            del self._waiting[request]
            _uncount(self._waiting_of, request.network)
            _uncount(self._waiting_of, request.account)

    def _surplus(self, entering: _Request) -> _Request | None:
        """Return the waiting request to refuse, perhaps the entering one; None if there is room."""
        is_named = entering.account[1] is not None
        if is_named and self._waiting_of[entering.account] > WAITING_OF_ACCOUNT:
            return entering
        capacity = self.capacity
        has_its_share = self._waiting_of[entering.network] > capacity // 2
        if not has_its_share and len(self._waiting) <= capacity:
            return None
        rivals = (
            each
            for each in self._waiting
            if self._may_displace(entering, each)
            and (not has_its_share or each.network == entering.network)
        )
        return max(rivals, key=self._burden, default=entering)

    def _may_displace(self, entering: _Request, other: _Request) -> bool:
        if other.since >= entering.since - DISPLACEABLE_SECONDS:
            return True
        # The only request of its network gets in, even in place of one that has waited.
        waiting = self._waiting_of
        return waiting[entering.network] == 1 and waiting[other.network] > 1

    def _burden(self, request: _Request) -> tuple[int, float, int, float, int]:
        """Return a sort key: the largest for the request whose network and account had the most."""
        return (
            self._waiting_of[request.network],
            self._served.get(request.network, 0),
            self._waiting_of[request.account],
            self._served.get(request.account, 0),
            request.number,
        )

    def _give_turns(self) -> None:
        while self._waiting and len(self._having_turns) < self._turns:
            request = self._next()
            self._quit(request)
            if not request.turn.done():  # cancelled a moment ago
                self._begin(request)

    def _next(self) -> _Request:
        oldest = next(iter(self._waiting))
        self._is_for_the_oldest = not self._is_for_the_oldest
        if self._is_for_the_oldest and oldest.since <= self._clock() - PATIENCE_SECONDS:
            return oldest
        return min(self._waiting, key=self._turn)

    def _turn(self, request: _Request) -> tuple[float, float, int]:
        """Return a sort key: the smallest for the request that is next."""
        served = self._served
        return (served.get(request.network, 0), served.get(request.account, 0), request.number)

    def _begin(self, request: _Request) -> None:
        self._having_turns.add(request)
        request.since = self._clock()
        for key in (request.network, request.account):
            self._served[key] = self._clock()
            self._served.move_to_end(key)
        while len(self._served) > _MEMORY:
            self._served.popitem(last=False)
        request.turn.set_result(True)


def _uncount(counter: Counter[Any], key: object) -> None:
    """Count one less, and remember no zeros."""
    counter[key] -= 1
    if not counter[key]:
        del counter[key]
