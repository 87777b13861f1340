"""The rate limit of writes of one account."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from app.core.exceptions import InvalidToken
from app.crud import posts
from app.models.audit_events import AuditAct, AuditEvent
from app.models.posts import Post
from app.rate_limits import counters, local_counters
from tests.support import faults
from tests.support.client import Client, Person
from tests.support.clock import Clock, clock_in
from tests.support.rate_limits import ELSEWHERE, HOME, at, rate_limited
from tests.support.redis_server import running_redis

LIMIT = 4
BODY = {"title": "Hello", "content": "", "status": "published", "tags": ["news"]}
WRITTEN = [201] * LIMIT


@pytest.fixture
async def client(client: Client, tmp_path: Path) -> AsyncIterator[Client]:
    """A client of an app that limits attempts."""
    async with limited(client, tmp_path) as found:
        yield found


def limited(client: Client, folder: Path, **options: Any) -> AbstractAsyncContextManager[Client]:
    return rate_limited(client, folder, **({"posts_per_minute": LIMIT} | options))


@pytest.fixture
async def ana(client: Client) -> Person:
    return await at(client, HOME).user()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return clock_in(monkeypatch, local_counters, counters)


async def write(person: Client, count: int, key: str | None = None) -> list[int]:
    """The statuses of posts, one after the other."""
    headers = {"Idempotency-Key": key} if key else {}
    return [(await person.post("/posts", BODY, headers=headers)).status_code for _ in range(count)]


async def test_so_many_posts_a_minute(client: Client, ana: Person, clock: Clock) -> None:
    """Of an account, from wherever; nobody else has to wait."""
    assert await write(ana, LIMIT) == WRITTEN
    refused = await ana.post("/posts", BODY)
    assert refused.status_code == 429
    assert refused.json()["code"] == "too_many_requests"
    wait = refused.headers["retry-after"]
    assert 0 < int(wait) <= 60
    assert refused.headers["ratelimit-policy"] == f'"write-account";q={LIMIT};w=60'
    assert refused.headers["ratelimit"] == f'"write-account";r=0;t={wait}'
    elsewhere = Client(at(client, ELSEWHERE).http, client.app, client.contract, ana.headers)
    assert await write(elsewhere, 3) == [429] * 3
    assert await write(await at(client, HOME).user("Luis"), 1) == [201]
    async with client.database.begin(readonly=True) as session:
        written = await session.scalar(select(func.count()).where(Post.author_id == ana.id))
        hits = select(AuditEvent).where(AuditEvent.act == AuditAct.limit_hit)
        [event] = await session.scalars(hits)
    assert written == LIMIT
    assert event.subject_id == ana.id
    assert event.details == {"door": "write", "limit": "account", "tries": LIMIT, "seconds": 60}
    clock.ahead += int(wait) + 1
    assert await write(ana, LIMIT + 1) == [*WRITTEN, 429]


async def test_of_many_at_once_exactly_so_many_are_written(client: Client, ana: Person) -> None:
    statuses = [
        answer.status_code
        for answer in await asyncio.gather(*(ana.post("/posts", BODY) for _ in range(20)))
    ]
    assert sorted(statuses) == [*WRITTEN, *[429] * (20 - LIMIT)]
    assert (await client.get("/posts")).json()["total"] == LIMIT


async def test_changes_count_as_posts_do_but_what_takes_away_does_not(ana: Person) -> None:
    at_post = f"/posts/{(await ana.write())['id']}"
    changed = await ana.patch(at_post, {"title": "Another"})
    assert changed.headers["ratelimit"].startswith(f'"write-account";r={LIMIT - 2};t=')
    for _ in range(2 * LIMIT):
        assert (await ana.delete(f"{at_post}/publication")).status_code == 200
    assert (await ana.put(f"{at_post}/publication")).status_code == 200
    assert (await ana.delete(at_post)).status_code == 204
    assert (await ana.post(f"{at_post}/restore")).status_code == 200
    for refused in (
        await ana.post("/posts", BODY),
        await ana.patch(at_post, {"title": "Once more"}),
        await ana.put(f"{at_post}/publication"),
        await ana.post(f"{at_post}/restore"),
    ):
        assert refused.status_code == 429
        assert refused.headers["ratelimit-policy"] == f'"write-account";q={LIMIT};w=60'
    assert (await ana.get(at_post)).json()["title"] == "Another"
    assert (await ana.delete(at_post)).status_code == 204


async def test_a_replay_does_not_count(ana: Person) -> None:
    """Nor do those who find that another was faster with the same key."""
    key = secrets.token_hex(16)
    assert await write(ana, 3 * LIMIT, key) == [201] * 3 * LIMIT
    headers = {"Idempotency-Key": secrets.token_hex(16)}
    at_once = await asyncio.gather(
        *(ana.post("/posts", BODY, headers=headers) for _ in range(LIMIT - 1))
    )
    assert [answer.status_code for answer in at_once] == [201] * (LIMIT - 1)
    assert len({answer.json()["id"] for answer in at_once}) == 1
    assert await write(ana, LIMIT) == [201] * (LIMIT - 2) + [429] * 2


async def test_what_is_not_written_for_its_form_does_not_count(ana: Person) -> None:
    at_post = f"/posts/{(await ana.write())['id']}"
    for _ in range(2 * LIMIT):
        assert (await ana.post("/posts", BODY | {"title": ""})).status_code == 422
        assert (await ana.patch(at_post, {"title": ""})).status_code == 422
    assert await write(ana, LIMIT) == [*WRITTEN[1:], 429]


async def test_what_fails_on_our_side_does_not_count(client: Client, ana: Person) -> None:
    at_post = f"/posts/{(await ana.write())['id']}"
    database = client.database
    transient, gone = faults.TRANSIENT[database.dialect][0], faults.GONE[database.dialect]
    with faults.failing_writes(database, transient, times=1):
        assert await write(ana, 1) == [201]
    for _ in range(LIMIT):
        with faults.failing_writes(database, gone):
            assert await write(ana, 1) == [503]
            assert (await ana.patch(at_post, {"title": "Another"})).status_code == 503
    assert await write(ana, LIMIT) == [*WRITTEN[2:], 429, 429]


async def test_what_was_refused_for_what_it_is_counts(
    ana: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when the author was deleted at the same moment."""

    def refuse(*_: object, **__: object) -> None:
        raise InvalidToken

    with monkeypatch.context() as patch:
        patch.setattr(posts, "create", refuse)
        assert await write(ana, LIMIT + 1) == [401] * LIMIT + [429]
    assert await write(ana, 1) == [429]


async def test_strangers_and_those_who_may_not_count_for_nobody(
    client: Client, ana: Person
) -> None:
    at_post = f"/posts/{(await ana.write())['id']}"
    for _ in range(LIMIT):
        assert (await client.post("/posts", BODY)).status_code == 401
        assert (await client.patch(at_post, {"title": "Mine"})).status_code == 401
    assert await write(ana, LIMIT) == [*WRITTEN[1:], 429]


@pytest.mark.parametrize("off", [{"posts_per_minute": 0}, {"rate_limit_enabled": False}])
async def test_it_can_be_switched_off(client: Client, tmp_path: Path, off: dict[str, Any]) -> None:
    async with limited(client, tmp_path, **off) as free:
        ana = await free.user()
        assert await write(ana, 3 * LIMIT) == [201] * 3 * LIMIT
        at_post = f"/posts/{(await ana.write())['id']}"
        assert (await ana.patch(at_post, {"title": "Another"})).status_code == 200


async def test_two_processes_count_together(client: Client, tmp_path: Path) -> None:
    """With Redis; and while it is away each goes on with what it has counted."""
    async with running_redis(tmp_path) as server:
        options = {"redis_url": server.url, "secret_key": secrets.token_urlsafe(32)}
        async with (
            limited(client, tmp_path, **options) as one,
            limited(client, tmp_path, **options) as other,
        ):
            ana = await at(one, HOME).user()
            there = Client(other.http, other.app, other.contract, ana.headers)
            answers = await asyncio.gather(
                *(each.post("/posts", BODY) for each in (ana, there) for _ in range(10))
            )
            statuses = sorted(answer.status_code for answer in answers)
            assert statuses == [*WRITTEN, *[429] * (20 - LIMIT)]
            await server.kill()
            assert 429 in await write(ana, LIMIT + 1)
