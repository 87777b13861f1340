"""A database that stands still: 503 in time, /health at once, normal when it goes on."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import quantiles

import httpx2
import pytest

from tests.faults.posting import PROMISED_SECONDS, account
from tests.faults.report import Report
from tests.faults.servers import defects
from tests.support.client import API, PASSWORD
from tests.support.database_servers import DatabaseServer
from tests.support.process import Server

pytestmark = pytest.mark.faults
CALLERS = 30
RECOVERY_SECONDS = 5.0
HEALTH_P99_SECONDS = 0.1
GROWTH_BYTES = 50 << 20
# What was asked just before may be answered from memory (docs/adr/0011): then it takes no time.
REMEMBERED_SECONDS = 1.5
_numbers = itertools.count(1)


@dataclass
class Answers:
    """The responses: status, when each was asked for, how long it took."""

    met: list[tuple[int, float, float]] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)

    def since(self, start: float) -> list[tuple[int, float, float]]:
        """Return those of the requests sent from a moment on."""
        return [each for each in self.met if each[1] >= start]


@asynccontextmanager
async def calling(
    http: httpx2.AsyncClient, headers: dict[str, str], answers: Answers
) -> AsyncIterator[None]:
    """CALLERS read and write inside the block, each one request after the other."""
    ended = asyncio.Event()
    kinds = itertools.cycle(_kinds())
    tasks = [
        asyncio.create_task(_call(http, next(kinds), headers, answers, ended))
        for _ in range(CALLERS)
    ]
    try:
        yield
    finally:
        ended.set()
        await asyncio.gather(*tasks)


def _kinds() -> list[tuple[str, str]]:
    return [
        ("GET", "/health/ready"),
        ("GET", f"{API}/posts"),
        ("GET", f"{API}/users/me"),
        ("POST", f"{API}/posts"),
        ("PATCH", f"{API}/users/me"),
        ("POST", f"{API}/auth/register"),
    ]


def _body(path: str) -> dict[str, str]:
    number = next(_numbers)
    if path.endswith("/posts"):
        return {"title": f"Post {number}", "content": "…"}
    if path.endswith("/register"):
        return {"email": f"new{number}@example.com", "name": "Ana", "password": PASSWORD}
    return {"name": f"Name {number}"}


async def _call(
    http: httpx2.AsyncClient,
    kind: tuple[str, str],
    headers: dict[str, str],
    answers: Answers,
    ended: asyncio.Event,
) -> None:
    method, path = kind
    while not ended.is_set():
        body = None if method == "GET" else _body(path)
        started = time.monotonic()
        response = await http.request(method, path, headers=headers, json=body)
        answers.met.append((response.status_code, started, time.monotonic() - started))
        if response.status_code not in {200, 201} and (
            response.status_code != 503 or "Retry-After" not in response.headers
        ):
            answers.violations.append(f"{response.status_code}: {response.text[:300]}")
        await asyncio.sleep(0.05)


@asynccontextmanager
async def probing(url: str, took: list[float]) -> AsyncIterator[None]:
    """Request /health some 40 times a second inside the block."""
    ended = asyncio.Event()

    async def probe() -> None:
        async with httpx2.AsyncClient(base_url=url, timeout=60) as http:
            while not ended.is_set():
                started = time.monotonic()
                assert (await http.get("/health")).status_code == 200
                took.append(time.monotonic() - started)
                await asyncio.sleep(0.02)

    task = asyncio.create_task(probe())
    try:
        yield
    finally:
        ended.set()
        await task


def resident(api: Server) -> int:
    """The memory of the API's process, in bytes."""
    pages = Path(f"/proc/{api.process.pid}/statm").read_text().split()[1]
    return int(pages) * 4096


@pytest.mark.parametrize("pooled", [True, False], ids=["pooled", "new"])
async def test_a_frozen_database_is_a_503_in_time(
    database_server: DatabaseServer, api: Server, whole: bool, report: Report, pooled: bool
) -> None:
    """On connections of the pool, and on ones that are opened to a server that says nothing."""
    if not whole and pooled != (database_server.kind == "postgresql"):
        pytest.skip("one of the two for each database; both with --whole")
    seconds = 30 if whole else 6
    answers, health = Answers(), list[float]()
    limits = httpx2.Limits(max_connections=CALLERS + 2)
    async with httpx2.AsyncClient(base_url=api.url, timeout=60, limits=limits) as http:
        headers = await account(http, "caller@example.com")
        if pooled:
            async with calling(http, headers, Answers()):
                await asyncio.sleep(2)
        memory, peak = resident(api), 0
        database_server.freeze()
        frozen = time.monotonic()
        assert database_server.is_frozen
        async with calling(http, headers, answers):
            async with probing(api.url, health):
                while time.monotonic() < frozen + seconds:
                    await asyncio.sleep(0.5)
                    peak = max(peak, resident(api))
                    report.progress(f"frozen, {len(answers.met)} answers")
            assert database_server.is_frozen, "until now"
            database_server.thaw()
            thawed = time.monotonic()
            await asyncio.sleep(RECOVERY_SECONDS + 2)
    meanwhile = [
        status
        for status, asked, took in answers.met
        if (status == 503 or took > REMEMBERED_SECONDS) and asked + took < thawed
    ]
    afterwards = answers.since(thawed)
    refused = [asked for status, asked, _ in afterwards if status == 503]
    recovery = max(refused, default=thawed) - thawed
    slowest = max(took for _, _, took in answers.met)
    # A bounded run has too few answers for the last hundredth to say more than the machine's load.
    high = quantiles(health, n=100)[98 if whole else 89]
    statuses = Counter(status for status, _, _ in answers.met)
    report.row(
        test="frozen, pooled" if pooled else "frozen, new connections",
        database=database_server.kind,
        faults=database_server.freezes,
        requests=len(answers.met),
        acknowledged=statuses[200] + statuses[201],
        recovery=recovery,
    )
    assert answers.violations == []
    assert set(meanwhile) == {503}
    assert len(meanwhile) >= CALLERS
    assert slowest < PROMISED_SECONDS
    assert recovery < RECOVERY_SECONDS
    assert {status for status, _, _ in answers.since(thawed + RECOVERY_SECONDS)} <= {200, 201}
    assert high < HEALTH_P99_SECONDS
    assert peak - memory < GROWTH_BYTES
    assert defects(api) == []
