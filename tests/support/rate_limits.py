"""Apps with limits, callers from any network, and the Redis that tests may use."""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
import pytest
from redis.asyncio import Redis
from redis.exceptions import RedisError

from app.rate_limits import limiter
from app.rate_limits.rules import LimitedAction, LimitScope, RateLimit
from tests.support.apps import client_of
from tests.support.client import API, PASSWORD, Client

REDIS_URL = os.environ.get("TEST_REDIS_URL", "redis://127.0.0.1:6379/9")
WRONG = "Wrong-Horse-7"
HOME, ELSEWHERE = "198.51.100.7", "203.0.113.9"


@asynccontextmanager
async def rate_limited(like: Client, folder: Path, **overrides: object) -> AsyncIterator[Client]:
    """A client of an app that limits attempts, and has counted none yet."""
    secret = secrets.token_urlsafe(32)
    settings = {"rate_limit_enabled": True, "secret_key": secret, "request_timeout_seconds": 60}
    # What is counted is attempts, however busy the machine is: hence the timeout.
    async with client_of(like, folder, **(settings | overrides)) as client:
        yield client


def at(client: Client, ip: str) -> Client:
    """The same app, called from this address."""
    transport = httpx2.ASGITransport(app=client.app, client=(ip, 50_000))
    http = httpx2.AsyncClient(transport=transport, base_url="http://testserver")
    return Client(http, client.app, client.contract, client.headers)


async def try_login(
    client: Client, email: str, password: str = PASSWORD, *, ip: str = "192.0.2.1"
) -> httpx2.Response:
    """The answer to one login."""
    form = {"username": email, "password": password}
    return await at(client, ip).request("POST", f"{API}/auth/login", data=form)


async def fail_to_login(client: Client, email: str, *, ips: Iterable[str]) -> list[int]:
    """The statuses of logins with a wrong password, one after the other."""
    return [(await try_login(client, email, WRONG, ip=ip)).status_code for ip in ips]


async def all_at_once(
    client: Client, email: str, password: str, *, ips: Iterable[str]
) -> list[int]:
    """The statuses of logins in parallel."""
    logins = (try_login(client, email, password, ip=ip) for ip in ips)
    return [response.status_code for response in await asyncio.gather(*logins)]


@asynccontextmanager
async def redis_or_skip() -> AsyncIterator[Redis]:
    """A client of the tests' Redis; in CI it has to answer."""
    client: Redis = Redis.from_url(REDIS_URL, socket_timeout=2, socket_connect_timeout=2)
    try:
        if not await _answers(client):
            if os.environ.get("CI"):
                pytest.fail("Redis does not answer")
            pytest.skip("Redis does not answer")
        yield client
    finally:
        await client.aclose()


async def _answers(client: Redis) -> bool:
    try:
        return bool(await client.get("") is None)
    except (OSError, RedisError):
        return False


def strangers(count: int) -> list[str]:
    """That many networks."""
    return [f"10.{number // 250}.{number % 250}.1" for number in range(count)]


def set_limits(
    monkeypatch: pytest.MonkeyPatch, action: LimitedAction, **by_scope: tuple[RateLimit, ...]
) -> None:
    """Replace limits of an action, by scope."""
    # What an earlier call has changed stays changed.
    limits = vars(limiter)["LIMITS"]
    changed = {**limits[action], **{LimitScope(name): new for name, new in by_scope.items()}}
    monkeypatch.setattr(limiter, "LIMITS", {**limits, action: changed})


async def email_of(client: Client, ip: str = HOME) -> str:
    """The address of a new account, registered there."""
    return str((await at(client, ip).register())["email"])
