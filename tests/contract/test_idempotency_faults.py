"""Idempotency keys when limits are used up and when the database fails."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from app.crud import users
from app.models.audit_events import AuditAct, AuditEvent
from app.models.idempotency_keys import IdempotencyKey
from app.rate_limits.rules import LimitedAction, RateLimit
from app.web import idempotency
from tests.support import faults
from tests.support.client import Client
from tests.support.concurrency import at_once, count, statuses
from tests.support.create_requests import CREATE_REQUESTS, is_replay, replayed, send
from tests.support.people import new_user
from tests.support.rate_limits import ELSEWHERE, HOME, at, rate_limited, set_limits

REGISTER = CREATE_REQUESTS[0]


@pytest.fixture
async def limited(client: Client, tmp_path: Path) -> AsyncIterator[Client]:
    """A client of an app that limits attempts."""
    async with rate_limited(client, tmp_path) as found:
        yield found


async def test_limits_that_are_used_up_refuse_no_replay_and_none_uses_them(
    limited: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that lost the response to its last allowed registration can still get it."""
    set_limits(monkeypatch, LimitedAction.register, network=(RateLimit(2, 3600),))
    caller, bodies = at(limited, HOME), [REGISTER.body() for _ in range(3)]
    first = await send(caller, "/auth/register", bodies[0], "key-0")
    for _ in range(4):
        again = await send(caller, "/auth/register", bodies[0], "key-0")
        assert replayed(again) == replayed(first)
        assert "register" not in again.headers["ratelimit"], "the rate limiter did not count it"
    last = await send(caller, "/auth/register", bodies[1], "key-1")
    assert last.status_code == 201, "replays have used up nothing"
    assert (await send(caller, "/auth/register", bodies[2], "key-2")).status_code == 429
    assert is_replay(await send(caller, "/auth/register", bodies[1], "key-1"))
    reused = await send(caller, "/auth/register", bodies[1] | {"name": "Eva"}, "key-1")
    assert reused.json()["code"] == "idempotency_key_reused"


async def limit_hits(client: Client) -> int:
    hits = select(func.count()).where(AuditEvent.act == AuditAct.limit_hit)
    return await count(client.database, hits)


async def test_concurrent_requests_of_one_registration_use_up_one_attempt(limited: Client) -> None:
    """Duplicates wait for the answer before they are counted: the address keeps its others."""
    caller, body = at(limited, HOME), REGISTER.body()
    responses = await at_once(send(caller, "/auth/register", body, "shared") for _ in range(12))
    assert statuses(responses) == {201: 12}
    assert sum(map(is_replay, responses)) == 11
    assert len({replayed(each) for each in responses}) == 1
    assert await limit_hits(limited) == 0
    again = [await caller.post("/auth/register", body) for _ in range(3)]
    assert [each.status_code for each in again] == [409, 409, 429]
    assert await limit_hits(limited) == 1, "the first of its window"


async def test_concurrent_requests_are_judged_singly_if_the_first_is_refused(
    limited: Client,
) -> None:
    caller, body = at(limited, HOME), REGISTER.body()
    await caller.post("/auth/register", body)
    responses = await at_once(send(caller, "/auth/register", body, "shared") for _ in range(4))
    assert statuses(responses) == {409: 2, 429: 2}


async def test_a_request_that_waits_too_long_is_refused_and_uses_up_nothing(
    limited: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_limits(monkeypatch, LimitedAction.register, network=(RateLimit(2, 3600),))
    monkeypatch.setattr(idempotency, "_LOOKS", 2)
    caller, body, register = at(limited, HOME), REGISTER.body(), users.register
    is_in, may_go = asyncio.Event(), asyncio.Event()

    async def slow(*given: Any, **named: Any) -> Any:
        is_in.set()
        await may_go.wait()
        return await register(*given, **named)

    monkeypatch.setattr(users, "register", slow)
    first = asyncio.create_task(send(caller, "/auth/register", body, "slow"))
    await is_in.wait()
    for _ in range(3):
        waiting = await send(caller, "/auth/register", body, "slow")
        assert (waiting.status_code, waiting.json()["code"]) == (409, "conflict")
    may_go.set()
    assert (await first).status_code == 201
    assert is_replay(await send(caller, "/auth/register", body, "slow"))
    assert await limit_hits(limited) == 0
    assert (await caller.post("/auth/register", REGISTER.body())).status_code == 201


async def test_a_key_tests_no_passwords(limited: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the key and the rest of the request, passwords can be guessed as often as at a login;
    then the right one is refused too. The owner's network is not limited."""
    set_limits(monkeypatch, LimitedAction.repeat, strangers=(RateLimit(3, 900),))
    body = REGISTER.body()
    first = await send(at(limited, HOME), "/auth/register", body, "key")
    codes = []
    for number in range(5):
        guess = body | {"password": f"Wrong-Horse-{number}"}
        thief = at(limited, f"203.0.113.{number}")
        codes.append((await send(thief, "/auth/register", guess, "key")).json()["code"])
    assert codes == ["idempotency_key_reused"] * 3 + ["too_many_requests"] * 2
    right = await send(at(limited, ELSEWHERE), "/auth/register", body, "key")
    assert right.status_code == 429
    assert "retry-after" in right.headers
    assert replayed(await send(at(limited, HOME), "/auth/register", body, "key")) == replayed(first)


@pytest.mark.parametrize("failing", [faults.failing_writes, faults.failing_commits])
@pytest.mark.parametrize("path", ["/auth/register", "/roles"])
async def test_what_the_database_refused_can_be_asked_for_again(
    client: Client, failing: Any, path: str
) -> None:
    """A1: a transaction that failed has left no key behind; one that is run again creates once."""
    admin = await new_user(client, ["admin"])
    create_request = next(each for each in CREATE_REQUESTS if each.path == path)
    dialect = client.database.dialect
    body = create_request.body()
    with failing(client.database, faults.TRANSIENT[dialect][0], times=2):
        first = await send(admin, path, body, "again")
    assert (first.status_code, is_replay(first)) == (201, False)
    assert replayed(await send(admin, path, body, "again")) == replayed(first)
    body = create_request.body()
    with failing(client.database, faults.GONE[dialect]):
        assert (await send(admin, path, body, "gone")).status_code == 503
    keys = select(func.count()).select_from(IdempotencyKey)
    assert await count(client.database, keys) == 1
    assert (await send(admin, path, body, "gone")).status_code == 201
