"""Counters of rate limits, in the process and in Redis: a flood does not evict them."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from redis.asyncio import Redis

from app.rate_limits import local_counters
from app.rate_limits.counters import Counters
from app.rate_limits.local_counters import MAX_KEYS, LocalCounters, Window
from tests.support.clock import Clock, clock_in
from tests.support.redis_server import RedisServer, running_redis

LIMIT = 10
ATTACKER, VICTIM = "203.0.113.9", "198.51.100.7"


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return clock_in(monkeypatch, local_counters)


def window(key: object, owner: str = ATTACKER, *, limit: int = LIMIT, seconds: int = 900) -> Window:
    return Window(str(key), seconds, limit, owner)


def count_up(counters: LocalCounters, limit_window: Window, steps: int) -> int:
    return [counters.add(limit_window) for _ in range(steps)][-1]


# --- In this process -------------------------------------------------------------------------


@pytest.mark.parametrize("flood", [76_000, MAX_KEYS + 5_000])
@pytest.mark.parametrize("spread", [0, 48])
def test_a_limit_stays_through_a_flood(flood: int, spread: int) -> None:
    """A74: of one network, or of many. Nor do other networks lose what is counted for them."""
    counters = LocalCounters()
    limiting, counted = window("at its limit", VICTIM), window("below its limit", VICTIM)
    count_up(counters, limiting, LIMIT)
    count_up(counters, counted, LIMIT - 1)
    for number in range(flood):
        counters.add(window(number, f"{ATTACKER} {number % spread if spread else ''}"))
    assert counters.count(limiting.key) == LIMIT
    assert counters.count(counted.key) == LIMIT - 1
    assert len(counters) <= MAX_KEYS
    assert len(counters) >= min(flood, MAX_KEYS * 0.98)


def test_what_is_back_at_0_is_gone() -> None:
    counters = LocalCounters()
    for number in range(1_000):
        assert counters.add(window(number)) == 1
        assert counters.add(window(number), -1) == 0
    assert counters.add(window("never counted"), -1) == 0
    assert len(counters) == 0
    assert counters.seconds_left(window(1)) == 0
    assert not counters._below_limit
    assert not counters._expiring


def test_the_oldest_go_first_and_of_the_largest_owner() -> None:
    counters = LocalCounters(max_keys=10)
    small = [window(f"small {number}", VICTIM) for number in range(3)]
    large = [window(f"large {number}", ATTACKER) for number in range(7)]
    for counted in small + large:
        counters.add(counted)
    # Counted again, it is not the oldest any more.
    counters.add(large[0])
    counters.add(window("new", VICTIM))
    left = [counted.key for counted in small + large if counters.count(counted.key)]
    assert left == [*(each.key for each in small), "large 0", *(f"large {n}" for n in range(2, 7))]


def test_those_of_equal_size_lose_in_turn() -> None:
    counters = LocalCounters(max_keys=200)
    for number in range(200):
        counters.add(window(number, f"owner {number % 100}"))
    counters.add(window("new", "other"))
    # Two are a hundredth of 200: of the owners that came first, the older key of each.
    assert [number for number in range(200) if not counters.count(str(number))] == [0, 1]


def test_keys_without_a_limit_go_before_those_with_one_of_the_same_owner() -> None:
    """Known networks are many and kept for long: what is counted is worth more."""
    counters = LocalCounters(max_keys=10)
    for number in range(6):
        counters.add(window(number, ATTACKER))
    for number in (6, 7):
        counters.add(window(number, ATTACKER, limit=0))
    for number in (8, 9):
        counters.add(window(number, VICTIM, limit=0))
    for number in (10, 11, 12):
        counters.add(window(number, VICTIM))
    assert [number for number in range(13) if not counters.count(str(number))] == [0, 6, 7]


def test_owners_of_many_keys_take_no_marks_from_those_of_few() -> None:
    """A mark says for a month that a network is known, and has no limit."""
    counters = LocalCounters()
    marks = [window(f"mark {number}", f"office {number // 20}", limit=0) for number in range(200)]
    counted = window("counted", VICTIM)
    for each in [*marks, counted]:
        counters.add(each)
    for number in range(MAX_KEYS + 500):
        counters.add(window(number, f"attacker {number % 2_000}"))
    assert all(counters.count(each.key) for each in [*marks, counted])
    assert MAX_KEYS * 0.98 <= len(counters) <= MAX_KEYS


def test_when_every_key_limits_new_ones_are_counted_together(clock: Clock) -> None:
    """Neither is a limit forgotten, nor is there a way around it, nor more memory used."""
    counters = LocalCounters(max_keys=5)
    for number in range(5):
        count_up(counters, window(number, limit=2), 2)
    counts = [counters.add(window(f"new {number}", VICTIM, limit=2)) for number in range(3)]
    assert counts == [1, 2, 3]
    assert counters.add(window("other limit", VICTIM, limit=3)) == 1
    assert counters.add(window("new 1", VICTIM, limit=2), -1) == 2
    assert counters.add(window("without", VICTIM, limit=9), -1) == 0
    assert 0 < counters.seconds_left(window("new 7", VICTIM, limit=2)) <= 900
    assert [counters.count(str(number)) for number in range(5)] == [2] * 5
    assert len(counters) == 7
    for _ in range(100):
        counters.add(window(random.random(), limit=2))
    assert len(counters) == 7
    clock.ahead += 961
    assert counters.add(window("without", VICTIM, limit=2), -1) == 0
    # The old ones have expired, and there is room again.
    assert counters.add(window("new 1", VICTIM, limit=2)) == 1
    assert counters.count("new 1") == 1
    for number in range(5):
        count_up(counters, window(f"again {number}", limit=2), 2)
    assert counters.add(window("new 9", VICTIM, limit=2)) == 1


def test_a_limit_that_is_not_reached_any_more_may_go() -> None:
    counters = LocalCounters(max_keys=2)
    count_up(counters, window("a", limit=2), 2)
    count_up(counters, window("b", limit=2), 2)
    counters.add(window("a", limit=2), -1)
    assert counters.add(window("c", limit=2)) == 1
    assert [counters.count(key) for key in "abc"] == [0, 2, 1]


def test_windows_end(clock: Clock) -> None:
    counters = LocalCounters()
    counted = window("key", seconds=60)
    assert count_up(counters, counted, 3) == 3
    clock.ahead += 30
    assert 29 < counters.seconds_left(counted) <= 30
    clock.ahead += 31
    assert counters.count("key") == 0
    assert counters.add(counted, -1) == 0
    assert counters.add(counted) == 1


def test_what_has_expired_makes_room_by_itself(clock: Clock) -> None:
    counters = LocalCounters()
    for number in range(1_000):
        counters.add(window(number, seconds=60))
    clock.ahead += 121
    for number in range(1_000, 1_300):
        counters.add(window(number, seconds=60))
    assert len(counters) == 300
    assert len(counters._expiring) <= 2


def test_it_counts_as_a_plain_dict_does() -> None:
    """Whatever the order of steps, while there is room."""
    chance, counters = random.Random(74), LocalCounters(max_keys=60)
    plain: dict[int, int] = {}
    for _ in range(20_000):
        number, amount = chance.randrange(50), chance.choice([1, 1, -1])
        plain[number] = max(0, plain.get(number, 0) + amount)
        counted = window(number, f"owner {number % 7}", limit=number % 4)
        assert counters.add(counted, amount) == plain[number]
    assert len(counters) == sum(count > 0 for count in plain.values())


# --- In Redis --------------------------------------------------------------------------------


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[RedisServer]:
    async with running_redis(tmp_path) as found:
        yield found


@pytest.fixture
async def redis(server: RedisServer) -> AsyncIterator[Redis]:
    async with Redis.from_url(server.url) as found:
        yield found


async def test_redis_keeps_nothing_that_is_back_at_0(server: RedisServer, redis: Redis) -> None:
    async with AsyncExitStack() as stack:
        counting = Counters(prefix="test", redis_url=server.url)
        stack.push_async_callback(counting.close)
        assert await counting.add([window("kept")]) == [1]
        # Once for what a script, connections and their buffers take, and once to be measured.
        await come_and_go(counting, range(2_000))
        before = (await redis.info("memory"))["used_memory_dataset"]
        await come_and_go(counting, range(2_000, 4_000))
        after = (await redis.info("memory"))["used_memory_dataset"]
        assert await counting.add([window("never counted")], -1) == [0]
    assert await redis.dbsize() == 1
    assert 0 < await redis.ttl("test:kept") <= 900
    assert after - before < 2_000 * 50, "a counter that stays takes 104 bytes"


async def come_and_go(counting: Counters, numbers: range) -> None:
    """Count each once and take it back, a hundred at a time."""
    for number in numbers[::100]:
        windows = [window(number + place) for place in range(100)]
        assert await counting.add(windows) == [1] * 100
        assert await counting.add(windows, -1) == [0] * 100


async def test_no_step_is_lost_when_others_go_back_to_0(server: RedisServer, redis: Redis) -> None:
    """A counter is deleted in the step that takes it to 0, not after another has counted."""
    processes = [Counters(prefix="test", redis_url=server.url) for _ in range(2)]
    counted = window("key", limit=1_000)

    async def go_back(counting: Counters) -> None:
        for _ in range(100):
            await counting.add([counted])
            await counting.add([counted], -1)

    async def stay(counting: Counters) -> None:
        for _ in range(20):
            await counting.add([counted])
            await asyncio.sleep(0.002)

    await asyncio.gather(
        *(go_back(each) for each in processes for _ in range(5)),
        *(stay(each) for each in processes),
    )
    assert await processes[0].count([counted.key]) == [40]
    assert 0 < await redis.ttl("test:key") <= 900
    assert await processes[0].add([counted], -40) == [0]
    assert await redis.dbsize() == 0
    for each in processes:
        assert not each._is_down
        await each.close()
