"""Rate limits of other actions than login: numbers, documentation and cost."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from app.core.groups import network_of
from app.models.audit_events import AuditAct, AuditEvent
from app.models.outbox import Mail
from app.rate_limits import counters, local_counters
from app.rate_limits.local_counters import LocalCounters
from app.rate_limits.rules import LIMITS, LimitedAction, LimitScope, RateLimit
from tests.support import faults
from tests.support.client import PASSWORD, Client
from tests.support.clock import Clock, clock_in
from tests.support.process import ROOT
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

COLUMNS = (LimitScope.network, LimitScope.account, LimitScope.strangers, LimitScope.everyone)


@pytest.fixture
async def client(client: Client, tmp_path: Path) -> AsyncIterator[Client]:
    """A client of an app that limits attempts."""
    async with rate_limited(client, tmp_path) as limited:
        yield limited


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return clock_in(monkeypatch, local_counters, counters)


async def test_registrations_are_limited_right_or_wrong(client: Client) -> None:
    """A49: per network; each counts, as each reveals whether an address is taken."""
    allowed = LIMITS[LimitedAction.register][LimitScope.network][0].max_attempts
    caller = at(client, HOME)
    statuses = Counter([await register(caller, number // 2) for number in range(allowed + 10)])
    assert statuses == {201: allowed // 2, 409: allowed // 2, 429: 10}
    assert await register(at(client, ELSEWHERE), 1_000) == 201


async def register(caller: Client, number: int) -> int:
    """The status of a registration of an address with a number."""
    body = {"email": f"person{number}@example.com", "name": "Ana", "password": PASSWORD}
    return (await caller.post("/auth/register", body)).status_code


async def test_an_address_is_registered_three_times_an_hour(client: Client) -> None:
    """A49: each is welcomed by a mail, to the owner of that address."""
    for network, status in enumerate([201, 201, 201, 429]):
        caller = at(client, f"10.0.0.{network}")
        assert await register(caller, 1) == status
        if status == 201:
            person = await caller.person({"email": "person1@example.com"})
            gone = await person.delete("/users/me", {"current_password": PASSWORD})
            assert gone.status_code == 204


async def test_invalid_input_is_no_try(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else it would keep others out at no cost."""
    set_limits(monkeypatch, LimitedAction.register, everyone=(RateLimit(2, 60),))
    for number in range(3):
        caller = at(client, f"10.0.0.{number}")
        weak = {"email": "ana@example.com", "name": "Ana", "password": "weak"}
        assert (await caller.post("/auth/register", weak)).status_code == 422
        assert (await caller.post("/auth/register", {})).status_code == 422
        for _ in range(30):
            assert (await caller.post("/auth/password/forgot", {})).status_code == 422
    assert await register(at(client, HOME), 1) == 201


async def test_a_block_of_ipv6_networks_has_a_limit_of_its_own(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client with a /48 has 65,536 networks."""
    set_limits(monkeypatch, LimitedAction.register, network=(RateLimit(1, 60),))
    ips = [f"2001:db8:1:{number:x}::1" for number in range(11)]
    statuses = [await register(at(client, ip), number) for number, ip in enumerate(ips)]
    assert statuses == [201] * 10 + [429]
    assert await register(at(client, "2001:db8:2::1"), 11) == 201


async def test_changes_of_ones_account_are_limited_though_they_are_right(client: Client) -> None:
    """Each is reported by mail, to an address that may not be confirmed."""
    ana = await at(client, HOME).user()
    body = {"current_password": PASSWORD}
    statuses = [
        (await ana.put("/users/me/email", body | {"new_email": f"new{n}@example.com"})).status_code
        for n in range(4)
    ]
    new = body | {"new_password": "Another-Horse-7"}
    statuses.append((await ana.put("/users/me/password", new)).status_code)
    assert statuses == [202] * 4 + [204]
    again = {"current_password": "Another-Horse-7", "new_password": PASSWORD}
    answer = await ana.put("/users/me/password", again)
    assert answer.status_code == 429
    assert answer.headers["ratelimit-policy"] == '"password-changes";q=5;w=3600'


@pytest.mark.parametrize("action", ["forgot", "resend"])
async def test_mails_that_are_withheld_are_written_down(client: Client, action: str) -> None:
    """A49, A58: the answers are as before; one event says that mails were asked for too often."""
    ana = await at(client, HOME).user()
    async with client.database.begin(readonly=True) as session:
        before = await session.scalar(select(func.count()).select_from(Mail))
    for _ in range(5):
        if action == "forgot":
            answer = await ana.post("/auth/password/forgot", {"email": ana.email})
        else:
            answer = await ana.post("/auth/email/verify/resend")
        assert answer.status_code == 202
    async with client.database.begin(readonly=True) as session:
        after = await session.scalar(select(func.count()).select_from(Mail))
        hits = select(AuditEvent.details).where(AuditEvent.act == AuditAct.limit_hit)
        [details] = await session.scalars(hits)
    assert (after or 0) - (before or 0) == 3
    assert (details["door"], details["limit"]) == (action, "address")


async def test_wrong_refresh_tokens_at_the_login_do_not_use_up_logins(client: Client) -> None:
    """RFC 6749 §6: one endpoint, two limited actions."""
    email = await email_of(client)
    form = {"grant_type": "refresh_token", "refresh_token": "wrong"}
    for _ in range(3):
        answer = await at(client, HOME).request("POST", "/auth/login", data=form)
        assert answer.status_code == 401
        assert answer.headers["ratelimit-policy"].startswith('"refresh-network"')
    shown = (await try_login(client, email, ip=ELSEWHERE)).headers["ratelimit"]
    assert shown.startswith('"login-account";r=10')


async def test_wrong_passwords_keep_nobody_from_refreshing_at_the_login(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor do too many wrong tokens there."""
    set_limits(monkeypatch, LimitedAction.login, network=(RateLimit(3, 60),))
    set_limits(monkeypatch, LimitedAction.refresh, network=(RateLimit(3, 60),))
    home = at(client, HOME)
    login = await home.log_in((await home.register())["email"])
    statuses = await fail_to_login(client, "nobody@example.com", ips=[HOME] * 4)
    assert statuses == [401] * 3 + [429]
    form = {"grant_type": "refresh_token", "refresh_token": login["refresh_token"]}
    assert (await home.request("POST", "/auth/login", data=form)).status_code == 200
    wrong = form | {"refresh_token": "wrong"}
    attempts = [await home.request("POST", "/auth/login", data=wrong) for _ in range(4)]
    assert [each.status_code for each in attempts] == [401] * 3 + [429]
    # The limit of the login is where it was.
    assert await fail_to_login(client, "nobody@example.com", ips=[HOME]) == [429]


async def test_registrations_are_limited_in_all(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_limits(monkeypatch, LimitedAction.register, everyone=(RateLimit(2, 60),))
    body = {"name": "Ana", "password": PASSWORD}
    for number, status in enumerate([201, 201, 429]):
        data = body | {"email": f"ana{number}@example.com"}
        answer = await at(client, f"10.0.0.{number}").post("/auth/register", data)
        assert answer.status_code == status


async def test_ones_password_asked_for_again_is_limited_in_each_session(client: Client) -> None:
    """A29: wherever it comes from; another session of the same account has attempts of its own."""
    caller = await at(client, HOME).user()
    statuses = []
    for ip in strangers(12):
        moved = at(caller, ip)
        answer = await moved.delete("/users/me", {"current_password": WRONG})
        statuses.append(answer.status_code)
    assert statuses == [403] * 10 + [429] * 2
    other = await at(client, ELSEWHERE).person(caller.account)
    answer = await other.delete("/users/me", {"current_password": PASSWORD})
    assert answer.status_code == 204


async def test_what_was_not_verified_does_not_count(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bad requests, and failures that are not the caller's, are given back."""
    email = await email_of(client)
    for _ in range(12):
        answer = await at(client, HOME).post("/auth/login", {"password": PASSWORD})
        assert answer.status_code == 422
        with monkeypatch.context() as patch:
            patch.setattr(client.app.state.passwords, "verify", None)
            assert (await try_login(client, email, ip=HOME)).status_code == 500
    assert (await try_login(client, email, ip=HOME)).headers["ratelimit"].split(";")[1] == "r=10"


async def test_an_address_gets_three_mails_an_hour(client: Client, clock: Clock) -> None:
    """A49: for every caller and every action, and whether or not there is such an account."""
    limiter = client.app.state.rate_limiter
    for address in ("ana@example.com", "nobody@example.com"):
        sent = [
            await limiter.attempt(action, ip=ip).may_mail(address)
            for ip, action in zip(
                strangers(6), [LimitedAction.forgot, LimitedAction.resend] * 3, strict=True
            )
        ]
        assert sent == [True] * 3 + [False] * 3
    clock.ahead += 3_601
    assert await limiter.attempt(LimitedAction.forgot, ip=HOME).may_mail("ana@example.com")


async def test_without_limits_nothing_is_counted(client: Client, tmp_path: Path) -> None:
    """RATE_LIMIT_ENABLED=false."""
    async with rate_limited(client, tmp_path, rate_limit_enabled=False) as free:
        email = await email_of(free)
        assert await fail_to_login(free, email, ips=[HOME] * 15) == [401] * 15
        answer = await try_login(free, email, ip=HOME)
        assert answer.status_code == 200
        assert "ratelimit" not in answer.headers
        assert await free.app.state.rate_limiter.attempt(LimitedAction.forgot, ip=HOME).may_mail(
            email
        )


async def test_a_flood_cannot_fill_the_memory(client: Client) -> None:
    counters = client.app.state.rate_limiter.counters
    counters.here = LocalCounters(max_keys=30)
    email = await email_of(client)
    assert await fail_to_login(client, email, ips=strangers(10)) == [401] * 10
    for number in range(60):
        await try_login(client, f"nobody{number}@example.com", WRONG, ip=f"10.0.9.{number}")
        assert len(counters.here) <= 30
    assert await fail_to_login(client, email, ips=strangers(12)[10:]) == [429] * 2


async def test_scripts_of_other_origins_may_read_the_limits(client: Client, tmp_path: Path) -> None:
    origin = "https://app.example.com"
    async with rate_limited(client, tmp_path, cors_origins=[origin]) as shared:
        answer = await at(shared, HOME).get("/health", headers={"Origin": origin})
    exposed = answer.headers["access-control-expose-headers"]
    assert {"RateLimit", "RateLimit-Policy", "Retry-After"} <= set(exposed.split(", "))


async def test_limited_actions_declare_that_they_may_refuse(client: Client) -> None:
    limited: Mapping[str, Any] = {
        name: operation["responses"]["429"]
        for name, (_, _, operation) in client.contract.operations.items()
        if "429" in operation["responses"]
    }
    assert {"login", "register", "delete_me"} <= set(limited)
    for declared in limited.values():
        assert {"Retry-After", "RateLimit", "RateLimit-Policy"} <= set(declared["headers"])


def test_the_decision_names_the_numbers() -> None:
    """docs/adr/0016-throttling.md has one row for each kind of action."""
    record = next((ROOT / "docs" / "adr").glob("*-throttling.md")).read_text()
    rows = [line.strip("|").split("|") for line in record.splitlines() if line.startswith("| `")]
    documented = {}
    for names, *cells in rows:
        for action in re.findall(r"`(\w+)`", names):
            documented[LimitedAction(action)] = {
                scope: [_rate_limit(part) for part in cell.split(",")]
                for scope, cell in zip(COLUMNS, cells, strict=True)
                if cell.strip()
            }
    assert documented == {
        action: {scope: [*of] for scope, of in limits.items() if scope in COLUMNS}
        for action, limits in LIMITS.items()
    }


def _rate_limit(text: str) -> RateLimit:
    found = re.fullmatch(r"(\d+)/(\d+) (min|h|d)", text.strip())
    assert found, text
    max_attempts, count, unit = found.groups()
    return RateLimit(int(max_attempts), int(count) * {"min": 60, "h": 3_600, "d": 86_400}[unit])


@pytest.mark.parametrize(
    ("ip", "network"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8::1", "20010db800000000"),
        ("2001:db8:0:0:ffff::2", "20010db800000000"),
        ("fe80::1%eth0", "fe80000000000000"),
        ("", ""),
        ("unknown", "unknown"),
    ],
)
def test_networks(ip: str, network: str) -> None:
    assert network_of(ip) == network


async def test_wrong_tokens_keep_nobody_with_a_right_one_out(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stale client in an office must not log everybody there out."""
    set_limits(monkeypatch, LimitedAction.refresh, network=(RateLimit(3, 60),))
    ana = at(client, HOME)
    login = await ana.log_in((await ana.register())["email"])
    wrong = {"refresh_token": "wrong"}
    statuses = [(await ana.post("/auth/refresh", wrong)).status_code for _ in range(5)]
    assert statuses == [401] * 3 + [429] * 2
    right = {"refresh_token": login["refresh_token"]}
    assert (await ana.post("/auth/refresh", right)).status_code == 200
    assert (await at(client, ELSEWHERE).post("/auth/refresh", wrong)).status_code == 401


async def test_who_had_an_address_before_is_a_stranger_to_the_next_account(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_limits(monkeypatch, LimitedAction.login, strangers=(RateLimit(1, 60),))
    thief = at(client, ELSEWHERE)
    assert await register(thief, 1) == 201
    person = await thief.person({"email": "person1@example.com"})
    assert (await person.delete("/users/me", {"current_password": PASSWORD})).status_code == 204
    assert await register(at(client, HOME), 1) == 201
    statuses = await fail_to_login(client, "person1@example.com", ips=[ELSEWHERE] * 2)
    assert statuses == [401, 429]


@pytest.mark.parametrize("failing", [faults.failing_writes, faults.failing_commits])
async def test_who_tries_again_through_an_outage_has_used_nothing_up(
    client: Client, failing: Any
) -> None:
    """What failed on our side is no try, however often it was run again."""
    caller, database = at(client, HOME), client.database
    transient, gone = faults.TRANSIENT[database.dialect][0], faults.GONE[database.dialect]
    with failing(database, transient, times=2):
        assert await register(caller, 1) == 201
    for fault in (transient, gone, gone, gone):
        with failing(database, fault):
            assert await register(caller, 2) == 503
    assert await register(caller, 2) == 201
