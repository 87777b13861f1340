"""Searches and counts share a bounded number of places; others are refused or wait."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from typing import Any

import pytest

from app.core.context import RequestContext, current
from app.core.exceptions import Overloaded
from app.db import pagination as listing_pages
from app.db import totals
from app.db.concurrency_limit import MAX_CAPACITY, MIN_CAPACITY, ConcurrencyLimit
from tests.support.client import Client
from tests.support.faults import eventually


def test_a_few_are_let_in_at_a_time_and_fewer_of_one_network() -> None:
    limit = ConcurrencyLimit()
    limit._seconds = 1
    assert limit.capacity == MIN_CAPACITY
    with ExitStack() as inside:
        for ip, room in (("192.0.2.1", MIN_CAPACITY * 2 // 3), ("192.0.2.2", MIN_CAPACITY // 3)):
            token = current.set(RequestContext(request_id="", ip=ip))
            try:
                for _ in range(room):
                    inside.enter_context(limit.slot())
                with pytest.raises(Overloaded), limit.slot():
                    pass
            finally:
                current.reset(token)
    assert not limit._running


def test_how_many_are_let_in_follows_from_how_long_they_take() -> None:
    limit = ConcurrencyLimit()
    token = current.set(RequestContext(request_id="", ip="192.0.2.1"))
    try:
        for _ in range(50):
            with limit.slot():
                pass
    finally:
        current.reset(token)
    assert limit.capacity == MAX_CAPACITY
    limit._seconds = 0.03
    assert limit.capacity == 10


async def test_searches_and_deep_pages_beyond_the_limit_are_refused_at_once(
    client: Client,
) -> None:
    running = client.app.state.paginator.expensive_queries._running
    far = {"page": listing_pages.DEEP // 100 + 1, "page_size": 100}
    with ExitStack() as inside:
        running["elsewhere"] += MAX_CAPACITY
        inside.callback(running.clear)
        for params in ({"q": "bread"}, far):
            refused = await client.get("/posts", params=params)
            assert (refused.status_code, refused.json()["code"]) == (503, "service_unavailable")
            assert int(refused.headers["retry-after"]) > 0
        assert (await client.get("/posts")).status_code == 200
    for params in ({"q": "bread"}, far):
        assert (await client.get("/posts", params=params)).status_code == 200


async def test_who_asks_what_is_being_counted_waits_for_that(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    ana = await client.user()
    await ana.write("Bread", content="-")
    pages = client.app.state.paginator
    pages.totals._entries.clear()
    find_out, counted = pages.totals._find_out, []

    async def slowly(*given: Any) -> tuple[int, ...]:
        counted.append(given)
        await asyncio.sleep(0.2)
        found: tuple[int, ...] = await find_out(*given)
        return found

    monkeypatch.setattr(pages.totals, "_find_out", slowly)
    asked = [asyncio.create_task(client.get("/posts")) for _ in range(4)]
    await asyncio.sleep(0.05)
    asked.pop().cancel()
    assert {(await answer).json()["total"] for answer in asked} == {1}
    assert len(counted) == 1
    assert not pages.totals._counting


async def test_who_asks_behind_a_change_waits_for_no_count_from_before(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = client.app.state.paginator.totals
    monkeypatch.setattr(memory, "_entries", {})
    ana = await client.user()
    await ana.write("Bread", content="-")
    find_out, began = memory._find_out, []

    async def slowly(*given: Any) -> tuple[int, ...]:
        found: tuple[int, ...] = await find_out(*given)
        began.append(found)
        await asyncio.sleep(0.2)
        return found

    monkeypatch.setattr(memory, "_find_out", slowly)
    asked = {"page_size": 1}
    before = asyncio.create_task(client.get("/posts", params=asked))
    await eventually(lambda: bool(began))
    await ana.write("Wine", content="-")
    monkeypatch.setattr(memory, "_entries", {})
    behind = await client.get("/posts", params=asked)
    assert (behind.json()["total"], (await before).status_code) == (2, 200)
    assert len(began) == 2
    assert not memory._counting


async def test_a_count_that_takes_long_is_made_anew_behind_the_answer(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(totals, "_COSTLY_SECONDS", -1)
    monkeypatch.setattr(totals, "_LONG_SECONDS", -1)
    monkeypatch.setattr(totals, "MAX_TOTAL_CACHE_SECONDS", 0)
    memory = client.app.state.paginator.totals
    monkeypatch.setattr(memory, "_entries", {})
    ana = await client.user()

    async def total() -> int:
        found: int = (await client.get("/tags", params={"page_size": 1})).json()["total"]
        return found

    for number in (1, 2):  # what takes long once, may have waited for something
        await ana.write("Bread", content="-", tags=[f"tag-{number}"])
        assert await total() == number
    await ana.write("Bread", content="-", tags=["tag-3"])
    find_out, may_go_on = memory._find_out, asyncio.Event()

    async def held_up(*given: Any) -> tuple[int, ...]:
        await may_go_on.wait()
        found: tuple[int, ...] = await find_out(*given)
        return found

    with monkeypatch.context() as patch:
        patch.setattr(memory, "_find_out", held_up)
        assert [await total(), await total()] == [2, 2], "late, and asked for once more"
    may_go_on.set()
    await asyncio.gather(*[each.task for each in memory._counting.values()])
    await asyncio.sleep(0)
    assert not memory._counting
    monkeypatch.setattr(totals, "_MAX_BEHIND", 0)
    assert await total() == 3
    assert not memory._counting, "as many as may be are under way"
    monkeypatch.setattr(totals, "_MAX_BEHIND", 2)
    assert await total() == 3
    await memory.close()
    assert not memory._counting
    # A count that fails is not an error: the cached total is returned.
    monkeypatch.setattr(memory._reader, "rows", None)
    cache_key, entry = next(iter(memory._entries.items()))
    assert await memory.count(cache_key[0], {}) == entry.value
    await asyncio.gather(*[each.task for each in memory._counting.values()], return_exceptions=True)
    await asyncio.sleep(0)
    assert not memory._counting


async def test_a_count_that_takes_long_is_remembered_while_others_write(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(totals, "_COSTLY_SECONDS", -1)
    monkeypatch.setattr(totals, "_COUNTING_SHARE", 1e-9)
    memory = client.app.state.paginator
    # Of this test alone: what takes long is remembered for a minute.
    monkeypatch.setattr(memory.totals, "_entries", {})
    ana = await client.user()
    asked = {"page_size": 1}
    # Twice in a row: once, it may have waited for something.
    for number in range(3):
        await ana.write(f"Post {number}")
        if number:
            assert (await client.get("/posts", params=asked)).json()["total"] == number + 1
    await ana.write("Post 3")
    first = (await client.get("/posts", params=asked)).json()
    assert (first["total"], first["total_is_exact"]) == (3, True)
    # It never contradicts the page it is shown with.
    last = (await client.get("/posts", params=asked | {"page": 4})).json()
    assert (last["total"], len(last["items"]), last["has_next"]) == (4, 1, False)
    beyond = (await client.get("/posts", params=asked | {"page": 9})).json()
    assert (beyond["items"], beyond["total"]) == ([], 3)
    third = (await client.get("/posts", params=asked | {"page": 3})).json()
    assert (third["total"], third["total_is_exact"], third["has_next"]) == (4, False, True)
