"""Floods of invalid input leave no counters and evict no limit."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import httpx2
import pytest
from redis.asyncio import Redis
from sqlalchemy import select

from app.models.audit_events import AuditAct, AuditEvent
from app.rate_limits.local_counters import LocalCounters, Window
from app.rate_limits.rules import BLOCK, LIMITS, LimitedAction, LimitScope, RateLimit
from tests.support import links
from tests.support.client import API, PASSWORD, Client
from tests.support.rate_limits import (
    ELSEWHERE,
    HOME,
    WRONG,
    at,
    email_of,
    fail_to_login,
    rate_limited,
    set_limits,
    strangers,
    try_login,
)
from tests.support.redis_server import running_redis

(INVALID,) = LIMITS[LimitedAction.register][LimitScope.invalid]
ATTACKER = "203.0.113.66"
Send = Callable[[Client, int], Awaitable[httpx2.Response]]


@pytest.fixture
async def client(client: Client, tmp_path: Path) -> AsyncIterator[Client]:
    """A client of an app that limits attempts."""
    async with rate_limited(client, tmp_path) as limited:
        yield limited


def here(client: Client) -> LocalCounters:
    """The counters of the app's process."""
    found: LocalCounters = client.app.state.rate_limiter.counters.here
    return found


def weak(number: int) -> dict[str, str]:
    """A registration whose password is judged by the app, not by the schema."""
    return {"email": f"flood{number}@example.com", "name": "Ana", "password": "weakpass"}


async def attack(client: Client, count: int) -> Counter[int]:
    """The statuses of so many invalid registrations, each of another address, from one network."""
    attacker = at(client, ATTACKER)
    found: Counter[int] = Counter()
    for number in range(count):
        found[(await attacker.post("/auth/register", weak(number))).status_code] += 1
    return found


async def lock(client: Client, email: str) -> None:
    """Use up what strangers may try on an account."""
    assert await fail_to_login(client, email, ips=strangers(10)) == [401] * 10


@pytest.mark.long
async def test_a_flood_of_invalid_registrations_wipes_no_limit(client: Client) -> None:
    """Nothing is counted for their addresses, and after so many they are refused."""
    email = await email_of(client)
    await lock(client, email)
    before = len(here(client))
    statuses = await attack(client, INVALID.max_attempts + 50)
    assert statuses == {422: INVALID.max_attempts, 429: 50}
    # What is counted for the network, and that it was written down.
    assert len(here(client)) == before + 2
    assert await fail_to_login(client, email, ips=strangers(30)[10:]) == [429] * 20
    assert (await try_login(client, email, ip=ELSEWHERE)).status_code == 429
    assert (await try_login(client, email, ip=HOME)).status_code == 200


@pytest.mark.long
async def test_a_flood_of_valid_tries_wipes_no_limit(client: Client) -> None:
    """However many others are counted, beside the ones that limit."""
    email = await email_of(client)
    await lock(client, email)
    counters = here(client)
    for number in range(76_000):
        counters.add(Window(f"flood {number}", 86_400, 40, ATTACKER))
    assert await fail_to_login(client, email, ips=strangers(20)[10:]) == [429] * 10
    assert len(counters) <= 100_000


# --- Invalid input, for every action ---------------------------------------------------------


async def _no_json(caller: Client, number: int) -> httpx2.Response:
    return await caller.request(
        "POST",
        f"{API}/auth/password/forgot",
        content=f'{{"email": "flood{number}@example.com"',
        headers={"Content-Type": "application/json"},
    )


async def _bad_key(caller: Client, number: int) -> httpx2.Response:
    valid = weak(number) | {"password": PASSWORD}
    return await caller.post("/auth/register", valid, headers={"Idempotency-Key": "a b"})


async def _too_long(caller: Client, number: int) -> httpx2.Response:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(6):
            yield f"flood{number}@example.com".encode() * 2_500

    headers = {"Content-Type": "application/json"}
    path = f"{API}/auth/register"
    return await caller.request("POST", path, content=pieces(), headers=headers)


async def _weak_with_key(caller: Client, number: int) -> httpx2.Response:
    headers = {"Idempotency-Key": f"key-{number}"}
    return await caller.post("/auth/register", weak(number), headers=headers)


INVALID_REQUESTS: dict[str, Send] = {
    "register a weak password": lambda caller, n: caller.post("/auth/register", weak(n)),
    "register with a key": _weak_with_key,
    "register with a bad key": _bad_key,
    "register without a name": lambda caller, n: caller.post(
        "/auth/register", {"email": f"flood{n}@example.com", "password": PASSWORD}
    ),
    "register no address": lambda caller, n: caller.post(
        "/auth/register", weak(n) | {"email": f"flood{n}"}
    ),
    "forgot": lambda caller, n: caller.post("/auth/password/forgot", {"email": f"flood{n}"}),
    "no JSON": _no_json,
    "too long": _too_long,
    "login": lambda caller, n: caller.request(
        "POST",
        f"{API}/auth/login",
        data={"username": f"flood{n}@example.com", "password": "x" * 2_000},
    ),
    "verify": lambda caller, n: caller.post("/auth/email/verify", {"tokens": f"{n}"}),
    "reset": lambda caller, n: caller.post("/auth/password/reset", {"token": f"{n}"}),
    "refresh": lambda caller, n: caller.post("/auth/refresh", {"token": f"{n}"}),
    "password": lambda caller, n: caller.put(
        "/users/me/password", {"current_password": PASSWORD, "new_password": f"weak{n}"}
    ),
    "address": lambda caller, n: caller.put(
        "/users/me/email", {"current_password": PASSWORD, "new_email": f"flood{n}"}
    ),
    "end": lambda caller, n: caller.delete("/users/me", {"password": f"{n}"}),
}


@pytest.mark.parametrize("which", INVALID_REQUESTS)
async def test_invalid_input_counts_for_the_network_alone(
    client: Client, monkeypatch: pytest.MonkeyPatch, which: str
) -> None:
    """Nothing is verified or hashed for it; after some it is refused, but who sends valid input
    from there is not."""
    ana = await at(client, HOME).user()
    caller = Client(at(client, ATTACKER).http, client.app, client.contract, ana.headers)
    for action in LimitedAction:
        set_limits(monkeypatch, action, invalid=(RateLimit(4, 900),))
    before = len(here(client))
    with monkeypatch.context() as patch:
        for secret in ("verify", "hash"):
            patch.setattr(client.app.state.passwords, secret, None)
        answers = [await INVALID_REQUESTS[which](caller, number) for number in range(7)]
    statuses = [answer.status_code for answer in answers]
    assert statuses == [413 if which == "too long" else 422] * 4 + [429] * 3
    refused = answers[-1].headers
    assert refused["ratelimit-policy"].endswith('-invalid";q=4;w=900')
    assert 0 < int(refused["retry-after"]) <= 900
    assert len(here(client)) == before + 2
    # The limit is the same for all actions, for this network and for invalid input.
    other = "forgot" if which == "verify" else "verify"
    assert (await INVALID_REQUESTS[other](caller, 1)).status_code == 429
    assert (await INVALID_REQUESTS[other](at(client, ELSEWHERE), 1)).status_code == 422
    assert (await try_login(client, ana.email, ip=ATTACKER)).status_code == 200
    forgotten = await at(client, ATTACKER).post("/auth/password/forgot", {"email": ana.email})
    assert forgotten.status_code == 202
    async with client.database.begin(readonly=True) as session:
        hits = select(AuditEvent.details).where(AuditEvent.act == AuditAct.limit_hit)
        [details] = await session.scalars(hits)
    assert (details["limit"], details["tries"]) == ("invalid", 4)


async def test_input_is_judged_before_an_address_is_counted(client: Client) -> None:
    """Else invalid registrations would keep the owner of the address from registering."""
    taken = {"email": "ana@example.com", "name": "Ana", "password": PASSWORD}
    for _ in range(5):
        answer = await at(client, ATTACKER).post("/auth/register", taken | {"password": "weakpass"})
        assert answer.status_code == 422
    statuses = [
        (await at(client, f"10.0.0.{n}").post("/auth/register", taken)).status_code
        for n in range(4)
    ]
    assert statuses == [201, 409, 409, 429]
    answer = await at(client, ATTACKER).post("/auth/register", taken | {"password": "weakpass"})
    assert answer.status_code == 422


async def test_a_block_of_networks_sends_no_more_of_it(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else each of the 65,536 networks of a /48 would have a counter of its own."""
    set_limits(monkeypatch, LimitedAction.register, invalid=(RateLimit(1, 900),))
    statuses = [
        (await at(client, f"2001:db8:1:{n:x}::1").post("/auth/register", weak(n))).status_code
        for n in range(BLOCK + 5)
    ]
    assert statuses == [422] * BLOCK + [429] * 5
    # The block, each network that was let through, and that the limit was met.
    assert len(here(client)) == 1 + BLOCK + 1


async def test_a_weak_password_by_a_good_link_is_no_try(client: Client) -> None:
    ana = await at(client, HOME).user()
    await at(client, HOME).post("/auth/password/forgot", {"email": ana.email})
    token = await links.token_to(client, ana.email)
    before = len(here(client))
    for number in range(5):
        body = {"token": token, "password": f"weak{number}"}
        assert (await at(client, HOME).post("/auth/password/reset", body)).status_code == 422
    assert len(here(client)) == before + 1
    good = {"token": token, "password": "Another-Horse-7"}
    assert (await at(client, HOME).post("/auth/password/reset", good)).status_code == 204


async def test_what_is_no_address_has_no_counters_of_its_own(client: Client) -> None:
    """It can be no account's: from one network, all of it counts as one."""
    statuses = await _malformed(client, ATTACKER, 15)
    assert statuses == [401] * 10 + [429] * 5
    kept = len(here(client))
    assert await _malformed(client, ATTACKER, 50) == [429] * 50
    assert len(here(client)) == kept
    # Nobody else is kept out by that, whatever they mistype.
    assert await _malformed(client, ELSEWHERE, 3) == [401] * 3
    email = await email_of(client)
    assert (await try_login(client, email, ip=ATTACKER)).status_code == 200


async def _malformed(client: Client, ip: str, count: int) -> list[int]:
    return [
        (await try_login(client, f"nobody {number} @", WRONG, ip=ip)).status_code
        for number in range(count)
    ]


async def test_right_tries_leave_no_counters(client: Client) -> None:
    """But for the network that is known from now on."""
    email = await email_of(client)
    await try_login(client, email, ip=HOME)
    before = len(here(client))
    for _ in range(20):
        assert (await try_login(client, email, ip=HOME)).status_code == 200
    assert len(here(client)) == before


async def test_redis_is_left_as_it_was(client: Client, tmp_path: Path) -> None:
    """104 bytes an hour of each address that was sent, once."""
    async with (
        running_redis(tmp_path) as server,
        rate_limited(client, tmp_path, redis_url=server.url) as shared,
        Redis.from_url(server.url) as redis,
    ):
        email = await email_of(shared)
        await lock(shared, email)
        await attack(shared, 1)
        before = await redis.dbsize()
        assert await attack(shared, 200) == {422: 200}
        for _ in range(5):
            assert (await try_login(shared, email, ip=HOME)).status_code == 200
        assert await redis.dbsize() == before
        assert await fail_to_login(shared, email, ips=strangers(15)[10:]) == [429] * 5
