"""The queue in front of the hashing threads: fairness, priority and refusal of surplus."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from app.core import hashing
from app.core.exceptions import Overloaded
from app.core.hashing import HashingQueue
from tests.support.faults import eventually

# With one thread and work that takes 20 ms by estimate: 60 may wait, 30 of one network.
SECONDS = 0.02


class Desk:
    """A queue with one thread that works on a piece until it is let go on, and a clock that
    stands still."""

    def __init__(self, threads: ThreadPoolExecutor, seconds: float = SECONDS) -> None:
        self.now = 1_000.0
        self.queue = HashingQueue(threads, count=1, seconds=seconds, clock=lambda: self.now)
        self.done: list[str] = []
        self.tasks: list[asyncio.Task[str]] = []
        self._turns = threading.Semaphore(0)

    async def come(self, network: str, account: str | None, *, looks_up: float = 0) -> str:
        async with self.queue.turn(network, account):
            await asyncio.sleep(looks_up)
            return await self.queue.run(lambda: self._work(f"{network} {account}"))

    async def send(self, network: str, account: str | None = None) -> asyncio.Task[str]:
        """Start a caller; it has been refused or waits when this returns."""
        task = asyncio.create_task(self.come(network, account))
        self.tasks.append(task)
        for _ in range(4):
            await asyncio.sleep(0)
        return task

    async def send_many(
        self, number: int, *networks: str, account: str = "a"
    ) -> list[asyncio.Task[str]]:
        """So many of each network, each with an account of their own; in turns."""
        return [
            await self.send(network, f"{account}{one}")
            for one in range(number)
            for network in networks
        ]

    async def serve(self, number: int = 1) -> list[str]:
        """Let so many be served; who they were."""
        before = len(self.done)
        for _ in range(number):
            self._turns.release()
        await eventually(lambda: len(self.done) == before + number)
        await asyncio.sleep(0.01)
        return self.done[before:]

    def let_all_go(self) -> None:
        for _ in range(10_000):
            self._turns.release()

    def assert_empty(self) -> None:
        queue = self.queue
        assert not queue._having_turns
        assert not queue._waiting
        assert not queue._waiting_of

    def _work(self, who: str) -> str:
        self._turns.acquire()
        self.done.append(who)
        return who


def refused(tasks: list[asyncio.Task[str]]) -> int:
    return sum(task.done() and isinstance(task.exception(), Overloaded) for task in tasks)


@pytest.fixture
async def desk(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Desk]:
    """Yield a desk that works on a first caller; assert at the end that its queue is empty."""
    monkeypatch.setattr(hashing, "_SMOOTHING", 0)
    monkeypatch.setattr(hashing, "BURST", 0)
    monkeypatch.setattr(hashing, "TURNS_PER_THREAD", 1)
    monkeypatch.setattr(hashing, "WAITING_OF_ACCOUNT", 10)
    with ThreadPoolExecutor(1) as threads:
        desk = Desk(threads)
        first = await desk.send("first")
        try:
            yield desk
        finally:
            desk.let_all_go()
        await asyncio.gather(first, *desk.tasks, return_exceptions=True)
        desk.assert_empty()


async def test_a_network_has_half_of_the_queue_at_most(desk: Desk) -> None:
    assert desk.queue.capacity == 60
    queued = await desk.send_many(540, "10.0.0.1")
    assert refused(queued) == 510
    assert not (await desk.send("stranger")).done()
    assert await desk.serve(3) == ["first None", "10.0.0.1 a0", "stranger None"]


async def test_a_stranger_displaces_the_newest_of_the_largest_network(desk: Desk) -> None:
    one = await desk.send_many(25, "10.0.0.1")
    others = await desk.send_many(18, "10.0.0.2", "10.0.0.3")
    assert refused([*one, *others]) == 1, "the queue is full"
    assert not (await desk.send("stranger")).done()
    assert [number for number, task in enumerate(one) if task.done()] == [23, 24]
    assert refused(others) == 0
    assert (await desk.serve(5))[-1] == "stranger None"


async def test_who_has_waited_is_displaced_by_a_network_without_anybody_alone(desk: Desk) -> None:
    queued = await desk.send_many(20, "10.0.0.1", "10.0.0.2", "10.0.0.3")
    desk.now += hashing.DISPLACEABLE_SECONDS * 2
    assert refused(await desk.send_many(5, "10.0.0.1", "10.0.0.2", account="later")) == 10
    assert refused(queued) == 0
    assert not (await desk.send("stranger")).done()
    assert refused(queued) == 1


async def test_among_equals_newcomers_are_refused_at_once(desk: Desk) -> None:
    queued = [await desk.send(f"10.0.{number}.1") for number in range(540)]
    assert refused(queued) == 480
    assert refused(queued[60:]) == 480


async def test_who_was_not_served_of_late_displaces_who_was(desk: Desk) -> None:
    """A storm that goes on from everywhere does not keep out who comes once in a while."""
    first = [await desk.send(f"10.0.{number}.1") for number in range(60)]
    await desk.serve(61)
    again = [await desk.send(f"10.0.{number}.1") for number in range(61)]
    assert refused([*first, *again]) == 0, "one of them is at work"
    assert not (await desk.send("stranger")).done()
    assert refused(again) == 1
    assert "stranger None" in await desk.serve(3)


async def test_networks_take_turns_and_so_do_accounts(desk: Desk) -> None:
    for account in ("a", "a", "a", "b"):
        await desk.send("10.0.0.1", account)
    await desk.send("10.0.0.2", "c")
    served = await desk.serve(6)
    assert served[0] == "first None"
    assert served[1:] == ["10.0.0.1 a", "10.0.0.2 c", "10.0.0.1 b", "10.0.0.1 a", "10.0.0.1 a"]


async def test_an_account_has_few_places_in_its_network(desk: Desk) -> None:
    """Ten logins at once go well; those of others are not in the way."""
    queued = [await desk.send("10.0.0.1", "a") for _ in range(50)]
    assert refused(queued) == 40
    assert refused([await desk.send("10.0.0.1", "b"), await desk.send("10.0.0.2", "a")]) == 0


async def test_neighbours_of_an_account_that_fills_the_network_get_in(desk: Desk) -> None:
    queued = [
        await desk.send("10.0.0.1", account) for _ in range(10) for account in ("a", "b", "c", "d")
    ]
    assert refused(queued) == 10
    desk.now += hashing.DISPLACEABLE_SECONDS / 2
    assert not (await desk.send("10.0.0.1", "e")).done()
    assert refused(queued) == 11
    assert (await desk.serve(3))[:2] == ["first None", "10.0.0.1 a"]


async def test_the_networks_of_an_ipv6_site_are_one(desk: Desk) -> None:
    queued = [await desk.send(f"20010db800010{number:03x}") for number in range(540)]
    assert refused(queued) == 510
    assert not (await desk.send("20010db800020000")).done()


async def test_who_has_waited_for_long_has_every_other_turn(desk: Desk) -> None:
    """However many come whose networks were served less of late."""
    await desk.send("busy", "a")
    await desk.serve(2)
    await desk.send("blocking")
    await desk.send("busy", "b")
    desk.now += hashing.PATIENCE_SECONDS
    for number in range(20):
        await desk.send(f"fresh{number}")
    assert "busy b" in await desk.serve(3)


async def test_how_many_may_wait_depends_on_how_long_the_work_takes() -> None:
    with ThreadPoolExecutor(1) as threads:
        capacities = [
            HashingQueue(threads, count=2, seconds=seconds).capacity
            for seconds in (0.0, 0.001, 0.018, 0.03, 0.06, 5)
        ]
    assert capacities == [256, 256, 133, 128, 100, 20]


async def test_the_time_that_turns_take_is_learned() -> None:
    """Only while others wait: a turn that nobody waits for tells nothing of a storm."""
    with ThreadPoolExecutor(1) as threads:
        queue = HashingQueue(threads, count=1, seconds=0.5)

        async def come(number: int) -> None:
            async with queue.turn(f"10.0.{number}.1"):
                await asyncio.sleep(0)

        for number in range(60):
            await come(number)
        assert queue.capacity == hashing.LEAST_WAITING
        for _ in range(10):
            await asyncio.gather(*map(come, range(20)))
        assert queue.capacity > hashing.LEAST_WAITING


async def test_who_is_cancelled_leaves_the_queue(desk: Desk) -> None:
    queued = await desk.send_many(30, "10.0.0.1")
    assert refused([await desk.send("10.0.0.1", "one more")]) == 1
    for task in queued[:10]:
        task.cancel()
    await asyncio.gather(*queued[:10], return_exceptions=True)
    assert refused(await desk.send_many(10, "10.0.0.1", account="b")) == 0
    assert len(await desk.serve(31)) == 31
    desk.assert_empty()


async def test_who_is_cancelled_at_the_last_moment_is_not_worked_for(desk: Desk) -> None:
    leaving, staying = await desk.send("leaving"), await desk.send("staying")
    leaving.cancel()
    desk.queue._having_turns.clear()
    desk.queue._give_turns()
    assert await desk.serve(2) == ["first None", "staying None"]
    assert await staying == "staying None"


async def test_who_is_cancelled_and_displaced_at_once_is_gone(desk: Desk) -> None:
    queued = await desk.send_many(30, "10.0.0.1", "10.0.0.2")
    stranger = asyncio.create_task(desk.come("stranger", "a"))
    queued[-1].cancel()  # it runs behind the stranger
    await asyncio.sleep(0)
    desk.let_all_go()
    assert await stranger == "stranger a"
    assert queued[-1].cancelled()
    assert refused(queued[:-1]) == 0


async def test_who_is_cancelled_during_the_work_wants_nothing_of_it(desk: Desk) -> None:
    [working] = desk.tasks
    working.cancel()
    with pytest.raises(asyncio.CancelledError):
        await working
    await desk.send("next")
    assert await desk.serve(2) == ["first None", "next None"]


async def test_an_error_of_the_work_is_the_callers(desk: Desk) -> None:
    def fail() -> str:
        desk._work("failing")
        raise LookupError

    async def come() -> str:
        async with desk.queue.turn("10.0.0.1"):
            return await desk.queue.run(fail)

    staying, leaving = asyncio.create_task(come()), asyncio.create_task(come())
    await asyncio.sleep(0)
    await desk.serve(2)
    with pytest.raises(LookupError):
        await staying
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    await desk.send("next")
    assert await desk.serve(2) == ["failing", "next None"]


async def test_a_second_piece_of_work_is_not_refused(desk: Desk) -> None:
    """Whose present password was right gets the new one hashed; nobody displaces them then."""
    full = asyncio.Event()

    async def change() -> list[str]:
        async with desk.queue.turn("10.0.0.9", "a"), desk.queue.turn("10.0.0.9", "inner"):
            first = await desk.queue.run(partial(desk._work, "1"))
            await full.wait()
            return [first, await desk.queue.run(partial(desk._work, "2"))]

    changing = asyncio.create_task(change())
    await asyncio.sleep(0)
    assert await desk.serve(2) == ["first None", "1"]
    assert refused(await desk.send_many(40, "10.0.0.1", "10.0.0.2")) > 0
    full.set()
    await asyncio.sleep(0)
    await desk.send_many(2, "10.0.0.3")
    desk.let_all_go()
    assert await changing == ["1", "2"]


async def test_few_look_something_up_at_a_time(desk: Desk) -> None:
    """540 at once do not all ask the database: surplus learns of it before any of them does."""
    looking = most = 0

    async def come(number: int) -> None:
        nonlocal looking, most
        async with desk.queue.turn(f"10.0.0.{number % 2}", f"a{number}"):
            looking += 1
            most = max(most, looking)
            await asyncio.sleep(0.001)
            looking -= 1
            await desk.queue.run(lambda: None)

    tasks = [asyncio.create_task(come(number)) for number in range(540)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert sum(task.done() for task in tasks) == 480
    desk.let_all_go()
    await asyncio.wait(tasks)
    assert sum(not task.exception() for task in tasks) == 60
    assert most == 1


async def test_what_is_remembered_of_networks_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hashing, "_MEMORY", 10)
    with ThreadPoolExecutor(1) as threads:
        queue = HashingQueue(threads, count=1, seconds=SECONDS)
        for number in range(100):
            async with queue.turn(f"10.0.0.{number}", "a"):
                await queue.run(lambda: None)
        assert len(queue._served) == 10
