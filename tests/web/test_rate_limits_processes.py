"""Rate limits across server processes, with and without a reverse proxy."""

from __future__ import annotations

import asyncio
import itertools
import secrets
import signal
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest
from redis.asyncio import Redis

from app.core.keyring import SecretKeys
from app.db.engine import Database
from tests.support.client import API, PASSWORD
from tests.support.process import Server, environment, serving
from tests.support.rate_limits import REDIS_URL, WRONG, redis_or_skip

pytestmark = pytest.mark.long

HOME = "198.51.100.7"
OWNER = "ana@example.com"
ATTEMPTS, AT_ONCE = 1_000, 50


@pytest.fixture
async def env(tmp_path: Path, database_url: str, database: Database) -> dict[str, str]:
    """Settings of a server on an empty database, which is emptied again afterwards."""
    assert database.dialect in database_url
    return environment(
        data_dir=tmp_path / "data",
        database_url=database_url,
        secret_key=secrets.token_urlsafe(32),
        port=0,
        # What is counted here is attempts, however busy the machine is.
        request_timeout_seconds=60,
    )


@pytest.fixture
async def shared(env: dict[str, str]) -> AsyncIterator[dict[str, str]]:
    """The same, behind a trusted proxy and with a Redis, which forgets them afterwards."""
    async with redis_or_skip() as redis:
        yield env | {"REDIS_URL": REDIS_URL, "TRUSTED_PROXIES": "127.0.0.1"}
        await _forget(redis, env["SECRET_KEY"])


async def _forget(redis: Redis, secret: str) -> None:
    prefix = f"cimiento-limits-{SecretKeys([secret]).newest_id}:"
    async for key in redis.scan_iter(match=f"{prefix}*"):
        await redis.delete(key)


async def login(
    http: httpx2.AsyncClient, server: Server, password: str, **headers: str
) -> httpx2.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    form = {"username": OWNER, "password": password}
    return await http.post(f"{server.url}{API}/auth/login", data=form, headers=named)


async def register(http: httpx2.AsyncClient, server: Server, **headers: str) -> None:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    body = {"email": OWNER, "name": "Ana", "password": PASSWORD}
    answer = await http.post(f"{server.url}{API}/auth/register", json=body, headers=named)
    assert answer.status_code == 201, answer.text


async def test_a_thousand_wrong_logins_at_two_processes(
    tmp_path: Path, shared: dict[str, str]
) -> None:
    """A47: ten of them reach the password, and the owner gets in all the while."""
    async with (
        serving(tmp_path, shared) as one,
        serving(tmp_path, shared) as other,
        httpx2.AsyncClient(timeout=60) as http,
    ):
        await register(http, one, x_forwarded_for=HOME)
        numbers = iter(range(ATTEMPTS))
        servers = itertools.cycle([one, other])
        statuses: Counter[int] = Counter()

        async def attack() -> None:
            for number in numbers:
                ip = f"10.{number // 250}.{number % 250}.1"
                answer = await login(http, next(servers), WRONG, x_forwarded_for=ip)
                statuses[answer.status_code] += 1
                if answer.status_code == 429:
                    assert 0 < int(answer.headers["retry-after"]) <= 900

        attackers = asyncio.gather(*(attack() for _ in range(AT_ONCE)))
        owners = [
            (await login(http, next(servers), PASSWORD, x_forwarded_for=HOME)).status_code
            for _ in range(10)
        ]
        await attackers
        at_once = [login(http, next(servers), PASSWORD, x_forwarded_for=HOME) for _ in range(10)]
        owners += [answer.status_code for answer in await asyncio.gather(*at_once)]
        complaints = [
            line for server in (one, other) for line in server.log if line["level"] != "INFO"
        ]
    assert statuses == {401: 10, 429: ATTEMPTS - 10}, complaints
    assert owners == [200] * 20


async def test_nobody_can_say_they_are_somebody_else(tmp_path: Path, env: dict[str, str]) -> None:
    """A48: what an untrusted peer forwards changes neither its bucket nor what is logged."""
    async with serving(tmp_path, env) as server, httpx2.AsyncClient(timeout=60) as http:
        await register(http, server)
        statuses = []
        for number in range(12):
            ip = f"10.0.{number}.1"
            answer = await login(
                http,
                server,
                WRONG,
                x_forwarded_for=ip,
                forwarded=f"for={ip}",
                x_real_ip=ip,
                x_client_ip=ip,
                true_client_ip=ip,
            )
            statuses.append(answer.status_code)
        await server.end(signal.SIGTERM)
        lines = [line for line in server.log if line["message"] == "request"]
    assert statuses == [401] * 10 + [429] * 2
    assert {line["ip"] for line in lines} == {"127.0.0.1"}


async def test_behind_a_proxy_the_last_hop_it_names_counts(
    tmp_path: Path, env: dict[str, str]
) -> None:
    """A48: what stands before it came from the client, and may be anything."""
    settings = env | {"TRUSTED_PROXIES": "127.0.0.1,192.0.2.0/24"}
    async with serving(tmp_path, settings) as server, httpx2.AsyncClient(timeout=60) as http:
        await register(http, server, x_forwarded_for=HOME)
        statuses = []
        for number in range(12):
            hops = [f"10.0.{number}.1", "127.0.0.1", "unknown", "203.0.113.9", "192.0.2.4"]
            answer = await login(
                http,
                server,
                WRONG,
                x_forwarded_for=", ".join(hops),
                forwarded=f"for=10.0.{number}.1",
                x_real_ip=f"10.0.{number}.1",
            )
            statuses.append(answer.status_code)
        assert (await login(http, server, PASSWORD, x_forwarded_for=HOME)).status_code == 200
        await server.end(signal.SIGTERM)
        lines = [line for line in server.log if line["message"] == "request"]
    assert statuses == [401] * 10 + [429] * 2
    assert Counter(line["ip"] for line in lines) == {HOME: 2, "203.0.113.9": 12}


async def test_two_processes_count_the_posts_of_an_account_together(
    tmp_path: Path, shared: dict[str, str]
) -> None:
    """Of twenty in parallel as many are written as one process would have written."""
    env = shared | {"POSTS_PER_MINUTE": "5"}
    async with (
        serving(tmp_path, env) as one,
        serving(tmp_path, env) as other,
        httpx2.AsyncClient(timeout=60) as http,
    ):
        await register(http, one)
        token = (await login(http, one, PASSWORD)).json()["access_token"]
        headers = {"Authorization": f"Bearer {token}"}
        post = {"title": "Hello", "content": ""}
        answers = await asyncio.gather(
            *(
                http.post(f"{server.url}{API}/posts", json=post, headers=headers)
                for server in (one, other)
                for _ in range(10)
            )
        )
    assert Counter(answer.status_code for answer in answers) == {201: 5, 429: 15}
    for answer in answers:
        if answer.status_code == 429:
            assert 0 < int(answer.headers["retry-after"]) <= 60
            assert answer.headers["ratelimit-policy"] == '"write-account";q=5;w=60'
