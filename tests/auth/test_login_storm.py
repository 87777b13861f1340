"""Many valid logins from one network at once: clients of other networks still log in."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

import httpx2
import pytest

from tests.conftest import SECRET, migrate
from tests.support.client import PASSWORD
from tests.support.process import environment, serving

pytestmark = pytest.mark.long

IN_FLIGHT = 200


@pytest.fixture
def url(tmp_path: Path) -> str:
    url = f"sqlite+aiosqlite:///{tmp_path}/test.db"
    migrate(url, tmp_path)
    return url


async def test_a_stranger_logs_in_while_hundreds_of_one_network_do(
    url: str, tmp_path: Path
) -> None:
    """A72: surplus logins get a 503 with Retry-After.

    `benchmarks/logins_in_flight.py` measures the times.
    """
    env = environment(
        port=0,
        database_url=url,
        data_dir=tmp_path,
        secret_key=SECRET,
        trusted_proxies="127.0.0.1",
        rate_limit_enabled="false",
        # A slow machine is not what is looked at.
        request_timeout_seconds=30,
    )
    bounds = httpx2.Limits(max_connections=None)
    async with (
        serving(tmp_path, env) as server,
        httpx2.AsyncClient(base_url=f"{server.url}/api/v1", timeout=60, limits=bounds) as http,
    ):
        for name in ("flood", "stranger"):
            account = {"email": f"{name}@example.com", "name": "Ana", "password": PASSWORD}
            assert (await http.post("/auth/register", json=account)).status_code == 201

        async def login(name: str, network: str) -> httpx2.Response:
            form = {"username": f"{name}@example.com", "password": PASSWORD}
            headers = {"X-Forwarded-For": network}
            return await http.post("/auth/login", data=form, headers=headers)

        logins = [asyncio.create_task(login("flood", "10.0.0.1")) for _ in range(IN_FLIGHT)]
        await asyncio.wait(logins, return_when=asyncio.FIRST_COMPLETED)
        for number in range(3):
            assert (await login("stranger", f"198.51.100.{number}")).status_code == 200
        answers = await asyncio.gather(*logins)
    counted = Counter(answer.status_code for answer in answers)
    assert counted.keys() == {200, 503}, counted
    assert counted[503] > counted[200] >= 10, "the one account has ten places"
    assert all(answer.headers["retry-after"] for answer in answers if answer.status_code == 503)
