"""Rate limits of logins: others cannot use them to lock out the owner of an account."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import select

from app.models.audit_events import AuditAct, AuditEvent
from app.rate_limits import counters, local_counters
from app.rate_limits.rules import LIMITS, LimitedAction, LimitScope, RateLimit
from tests.support import links
from tests.support.client import PASSWORD, Client
from tests.support.clock import Clock, clock_in
from tests.support.rate_limits import (
    ELSEWHERE,
    HOME,
    WRONG,
    all_at_once,
    at,
    email_of,
    fail_to_login,
    rate_limited,
    set_limits,
    strangers,
    try_login,
)

pytestmark = pytest.mark.long

ATTEMPTS = LIMITS[LimitedAction.login][LimitScope.strangers][0].max_attempts
NETWORK_ATTEMPTS = LIMITS[LimitedAction.login][LimitScope.network][0].max_attempts


@pytest.fixture
async def client(client: Client, tmp_path: Path) -> AsyncIterator[Client]:
    """A client of an app that limits attempts."""
    async with rate_limited(client, tmp_path) as limited:
        yield limited


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return clock_in(monkeypatch, local_counters, counters)


async def hits(client: Client) -> list[AuditEvent]:
    """What the audit trail knows of limits."""
    async with client.database.begin(readonly=True) as session:
        statement = select(AuditEvent).where(AuditEvent.act == AuditAct.limit_hit)
        return [*await session.scalars(statement.order_by(AuditEvent.id))]


async def test_after_ten_wrong_passwords_even_the_right_one_has_to_wait(
    client: Client, clock: Clock
) -> None:
    """A47: 429 with Retry-After, and in again when it is over."""
    email = await email_of(client)
    assert await fail_to_login(client, email, ips=[HOME] * ATTEMPTS) == [401] * ATTEMPTS
    refused = await try_login(client, email, ip=HOME)
    assert refused.status_code == 429
    assert refused.json()["code"] == "too_many_requests"
    wait = int(refused.headers["retry-after"])
    assert 0 < wait <= 900
    clock.ahead += wait - 5
    assert (await try_login(client, email, ip=HOME)).status_code == 429
    clock.ahead += 6
    assert (await try_login(client, email, ip=HOME)).status_code == 200


async def test_the_wait_grows(client: Client, clock: Clock) -> None:
    """A47: a quarter of an hour, then an hour, then a day, if the attempts go on."""
    email = await email_of(client)
    waits = []
    for _ in range(5):
        statuses = await fail_to_login(client, email, ips=[HOME] * ATTEMPTS)
        refused = await try_login(client, email, ip=HOME)
        waits.append(int(refused.headers["retry-after"]))
        assert refused.status_code == 429, statuses
        clock.ahead += waits[-1] + 1
    quarter, hour, second_quarter, day, _ = waits
    assert quarter <= 900 < hour <= 3_600
    assert second_quarter <= 900
    assert 3_600 < day <= 86_400


async def test_an_answer_tells_what_is_left(client: Client) -> None:
    """Right, wrong and refused attempts carry `RateLimit` and `RateLimit-Policy`."""
    email = await email_of(client)
    right = await try_login(client, email, ip=HOME)
    assert right.headers["ratelimit-policy"] == '"login-account";q=10;w=900'
    assert right.headers["ratelimit"].startswith('"login-account";r=10;t=')
    wrong = await try_login(client, email, WRONG, ip=HOME)
    assert wrong.headers["ratelimit"].startswith('"login-account";r=9;t=')
    await fail_to_login(client, email, ips=[HOME] * (ATTEMPTS - 1))
    refused = await try_login(client, email, ip=HOME)
    wait = refused.headers["retry-after"]
    assert refused.headers["ratelimit"] == f'"login-account";r=0;t={wait}'
    assert refused.headers["ratelimit-policy"] == '"login-account";q=10;w=900'


async def test_what_an_answer_tells_is_the_same_without_an_account(client: Client) -> None:
    """A30: nobody learns from the limits whether there is an account, however they write it."""
    known, unknown = await email_of(client), "nobody.at.all@example.com"
    for email in (known, unknown):
        answers = [
            await try_login(client, email.upper(), WRONG, ip=ip) for ip in strangers(ATTEMPTS)
        ]
        answers.append(await try_login(client, f" {email}", WRONG, ip=ELSEWHERE))
        assert [answer.status_code for answer in answers] == [401] * ATTEMPTS + [429]
        left = [answer.headers["ratelimit"].partition(";t=")[0] for answer in answers]
        assert left == ['"login-account";r=9'] * ATTEMPTS + ['"login-strangers";r=0']
        assert 890 < int(answers[-1].headers["retry-after"]) <= 900


async def test_strangers_cannot_lock_the_owner_out(client: Client) -> None:
    """A47: an account is let in where it logged in, was registered or had its password reset."""
    email = await email_of(client, ip="192.0.2.50")
    assert (await try_login(client, email, ip=HOME)).status_code == 200
    assert Counter(await fail_to_login(client, email, ips=strangers(40))) == {401: 10, 429: 30}
    assert (await try_login(client, email, ip=HOME)).status_code == 200
    assert (await try_login(client, email, ip="192.0.2.50")).status_code == 200
    assert (await try_login(client, email, ip=ELSEWHERE)).status_code == 429
    await at(client, ELSEWHERE).post("/auth/password/forgot", {"email": email})
    new = {"token": await links.token_to(client, email), "password": "Another-Horse-7"}
    assert (await at(client, ELSEWHERE).post("/auth/password/reset", new)).status_code == 204
    answer = await try_login(client, email, "Another-Horse-7", ip=ELSEWHERE)
    assert answer.status_code == 200


async def test_the_owners_own_limit_holds_where_they_are_known(client: Client) -> None:
    email = await email_of(client)
    await fail_to_login(client, email, ips=strangers(ATTEMPTS))
    assert await fail_to_login(client, email, ips=[HOME] * 12) == [401] * 10 + [429] * 2


async def test_ten_right_logins_at_once_all_succeed(client: Client) -> None:
    """A47. More of them may have to wait, but use nothing up."""
    email = await email_of(client)
    for ip in (HOME, ELSEWHERE):
        assert await all_at_once(client, email, PASSWORD, ips=[ip] * 10) == [200] * 10
        await all_at_once(client, email, PASSWORD, ips=[ip] * 25)
        assert (await try_login(client, email, ip=ip)).headers["ratelimit"].split(";")[1] == "r=10"


async def test_parallel_tries_are_counted_exactly(client: Client) -> None:
    """A47: of fifty at once exactly the documented number reach the password."""
    email = await email_of(client)
    statuses = await all_at_once(client, email, WRONG, ips=strangers(50))
    assert Counter(statuses) == {401: ATTEMPTS, 429: 50 - ATTEMPTS}


async def test_one_network_and_many_accounts(client: Client) -> None:
    """A47: an IPv4 address, or the /64 of an IPv6 address; the neighbours are not affected."""
    email = await email_of(client)
    for own, neighbour in ((HOME, "198.51.100.8"), ("2001:db8:1:2::{}", "2001:db8:1:3::1")):
        refused = 0
        for number in range(NETWORK_ATTEMPTS + 5):
            ip = own.format(number + 1)
            answer = await try_login(client, f"nobody{number}@example.com", WRONG, ip=ip)
            refused += answer.status_code == 429
        assert refused == 5
        assert answer.headers["ratelimit-policy"] == '"login-network";q=100;w=900'
        assert (await try_login(client, email, ip=own.format("ffff"))).status_code == 429
        assert (await try_login(client, email, ip=neighbour)).status_code == 200


async def test_a_limit_for_all_leaves_out_who_is_known(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_limits(monkeypatch, LimitedAction.login, everyone=(RateLimit(5, 60),))
    email = await email_of(client)
    for number in range(6):
        answer = await try_login(
            client, f"nobody{number}@example.com", WRONG, ip=f"10.0.0.{number}"
        )
    assert answer.status_code == 429
    assert answer.headers["ratelimit-policy"] == '"login-everyone";q=5;w=60'
    assert (await try_login(client, email, ip=ELSEWHERE)).status_code == 429
    assert (await try_login(client, email, ip=HOME)).status_code == 200


async def test_each_limit_that_is_hit_is_written_down_once(client: Client, clock: Clock) -> None:
    """A58: one event for each limit and window, not for each refusal, and it stays."""
    email = await email_of(client)
    assert (await try_login(client, email, ip=HOME)).status_code == 200
    await fail_to_login(client, email, ips=strangers(30))
    (event,) = await hits(client)
    assert event.details == {"door": "login", "limit": "strangers", "tries": 10, "seconds": 900}
    assert event.subject_type == "user"
    assert event.subject_id
    assert event.ip == strangers(30)[10]
    assert event.request_id
    clock.ahead += 901
    await fail_to_login(client, email, ips=strangers(30))
    await fail_to_login(client, "nobody@example.com", ips=strangers(30))
    _, again, nobody = await hits(client)
    assert again.subject_id == event.subject_id
    assert nobody.subject_id is None
