"""Writers that keep account of what was acknowledged, and the look at what is really there."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx2
from sqlalchemy import Engine, text

from tests.support.client import API, PASSWORD

PROMISED_SECONDS = 5.0
_PAUSE_SECONDS = 0.03
_LETTERS = "añ✓😀e\u0301 \n'\"\\%_"


@dataclass
class Ledger:
    """What was asked for and what was answered.

    `allowed` holds, for each post by its title, the contents it may have: one once it was
    acknowledged; several, or none at all, where a 503 left open whether it was done.
    """

    allowed: dict[str, set[str | None]] = field(default_factory=dict)
    statuses: Counter[int] = field(default_factory=Counter)
    slowest: float = 0.0
    violations: list[str] = field(default_factory=list)
    last_success: dict[int, float] = field(default_factory=dict)

    @property
    def acknowledged(self) -> int:
        return self.statuses[201] + self.statuses[200]

    @property
    def requests(self) -> int:
        return self.statuses.total()

    def note(self, writer: int, response: httpx2.Response, seconds: float) -> bool:
        """Take an answer down; whether the write was acknowledged."""
        self.statuses[response.status_code] += 1
        self.slowest = max(self.slowest, seconds)
        if response.status_code in {200, 201}:
            self.last_success[writer] = time.monotonic()
            return True
        if response.status_code != 503 or "Retry-After" not in response.headers:
            self.violations.append(f"{response.status_code}: {response.text[:300]}")
        return False

    async def all_have_written_since(self, moment: float, writers: int) -> float:
        """Return when every writer was successful again; how long after the moment."""
        async with asyncio.timeout(60):
            while sum(last > moment for last in self.last_success.values()) < writers:  # noqa: ASYNC110 nothing announces it
                await asyncio.sleep(0.01)
        return max(self.last_success.values()) - moment


async def account(http: httpx2.AsyncClient, email: str) -> dict[str, str]:
    """Register and log in; the headers of that person's requests."""
    body = {"email": email, "name": "Ana", "password": PASSWORD}
    response = await http.post(f"{API}/auth/register", json=body)
    assert response.status_code == 201, response.text
    form = {"username": email, "password": PASSWORD}
    login = await http.post(f"{API}/auth/login", data=form)
    assert login.status_code == 200, login.text
    return {"Authorization": f"Bearer {login.json()['access_token']}"}


@asynccontextmanager
async def writing(url: str, ledger: Ledger, *, writers: int) -> AsyncIterator[None]:
    """So many people make and change posts inside the block."""
    limits = httpx2.Limits(max_connections=writers + 2)
    async with httpx2.AsyncClient(base_url=url, timeout=30, limits=limits) as http:
        people = [await account(http, f"writer{number}@example.com") for number in range(writers)]
        ended = asyncio.Event()
        tasks = [
            asyncio.create_task(_write(http, ledger, number, headers, ended))
            for number, headers in enumerate(people)
        ]
        try:
            yield
        finally:
            ended.set()
            await asyncio.gather(*tasks)


async def _write(
    http: httpx2.AsyncClient,
    ledger: Ledger,
    writer: int,
    headers: dict[str, str],
    ended: asyncio.Event,
) -> None:
    turn = random.Random(writer)
    number = 0
    while not ended.is_set():
        number += 1
        title = f"writer {writer} post {number}"
        first, second = (_content(turn) for _ in range(2))
        ledger.allowed[title] = {None, first}
        body = {"title": title, "content": first, "tags": [f"w{writer}", f"n{number % 7}"]}
        done, response = await _ask(http, ledger, writer, "POST", f"{API}/posts", headers, body)
        if not done:
            await asyncio.sleep(_PAUSE_SECONDS)
            continue
        ledger.allowed[title] = {first}
        if number % 3:
            continue
        ledger.allowed[title] = {first, second}
        path = response.headers["Location"]
        body = {"content": second}
        done, _ = await _ask(http, ledger, writer, "PATCH", path, headers, body)
        if done:
            ledger.allowed[title] = {second}


async def _ask(
    http: httpx2.AsyncClient,
    ledger: Ledger,
    writer: int,
    method: str,
    path: str,
    headers: dict[str, str],
    body: dict[str, Any],
) -> tuple[bool, httpx2.Response]:
    started = time.monotonic()
    response = await http.request(method, path, headers=headers, json=body)
    return ledger.note(writer, response, time.monotonic() - started), response


def _content(turn: random.Random) -> str:
    return "".join(turn.choices(_LETTERS, k=turn.randrange(1, 3_000)))


@dataclass(frozen=True)
class Findings:
    """What the tables hold against the ledger."""

    lost: list[str]
    doubled: list[str]
    half: list[str]


def compare(engine: Engine, ledger: Ledger) -> Findings:
    """Every acknowledged write byte-exact, every other one whole or not at all, none twice."""
    with engine.connect() as connection:
        found = connection.execute(
            text("SELECT id, title, content FROM posts WHERE title LIKE 'writer %'")
        ).all()
        tags = Counter(connection.scalars(text("SELECT post_id FROM post_tags")))
    contents: dict[str | None, str] = {title: content for _, title, content in found}
    times = Counter(title for _, title, _ in found)
    return Findings(
        lost=[title for title, may in ledger.allowed.items() if contents.get(title) not in may],
        doubled=[title for title, count in times.items() if count > 1],
        half=[title for post_id, title, _ in found if tags[post_id] != 2],
    )
