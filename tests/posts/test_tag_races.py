"""Concurrent changes of the counts of tags: no count is lost, and no deadlock."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import AsyncIterator, Awaitable
from functools import partial
from pathlib import Path

import httpx2
import pytest
from fastapi import FastAPI
from sqlalchemy import select

from app.crud import tags
from app.db.engine import Database
from app.models.tags import Tag
from app.tasks import repair
from tests.conftest import wipe
from tests.support.client import Client, Person
from tests.support.concurrency import at_once, patient_app, statuses
from tests.support.tag_counts import assert_right

# Of sixteen or more requests; measured: none.
MOST_RETRIES = 3
POST = {"title": "A title", "content": "Some content.", "status": "published"}


def orders_of(names: list[str]) -> list[list[str]]:
    """The names in another order each: the order of locks must not depend on the caller's."""
    return [names[turn:] + names[:turn] for turn in range(len(names))]


NAMES = [f"tag {number}" for number in range(8)]
ORDERS = orders_of(NAMES)


@pytest.fixture
async def app(database_url: str, tmp_path: Path) -> AsyncIterator[FastAPI]:
    """Takes the place of the common one, for `client` and all that is built on it."""
    async with patient_app(database_url, tmp_path) as patient:
        yield patient
        await wipe(patient.state.database)


def retries(caplog: pytest.LogCaptureFixture) -> int:
    """How often a transaction was run again."""
    return sum(record.getMessage() == "transaction retried" for record in caplog.records)


@pytest.mark.parametrize("are_known", [False, True], ids=["new tags", "known tags"])
async def test_many_posts_at_once_with_the_same_tags_all_count(
    client: Client, are_known: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Sixteen posts whose tags overlap: all created, all counted, and no storm of deadlocks."""
    caplog.set_level(logging.INFO, "app.request")
    people = [await client.user() for _ in range(4)]
    # Of this test alone: where a name was deleted just before, MariaDB locks what is left of it,
    # and of two who make it anew one may have to run again.
    names = [f"{int(are_known)} tag {number}" for number in range(8)]
    known = int(are_known)
    if known:
        await people[0].write(tags=names)
    orders = orders_of(names)
    responses = await at_once(
        people[number % 4].post("/posts", POST | {"tags": orders[number % 8][:5]})
        for number in range(16)
    )
    assert statuses(responses) == {201: 16}
    assert await assert_right(client.database) == dict.fromkeys(names, 10 + known)
    assert retries(caplog) <= MOST_RETRIES


async def test_everything_at_once_loses_no_count(client: Client) -> None:
    """Posts are created, edited, published, unpublished, deleted and restored, while authors leave
    and return, and a repair of the counts finds nothing wrong."""
    admin, moderator = await client.admin(), await client.moderator()
    people = [await client.user() for _ in range(3)]
    posts = [await person.write(tags=NAMES[:3]) for person in people for _ in range(2)]
    paths = [f"/posts/{post['id']}" for post in posts]

    async def run_repair() -> httpx2.Response:
        assert await repair.repair_tag_counts(client.database) == 0
        return httpx2.Response(200)

    for turn in range(4):
        order = ORDERS[turn]
        requests: list[Awaitable[httpx2.Response]] = [
            *(moderator.patch(path, {"tags": order[:4]}) for path in paths[:3]),
            *(moderator.delete(f"{path}/publication") for path in paths[2:4]),
            *(moderator.put(f"{path}/publication") for path in paths[1:3]),
            *(moderator.delete(path) for path in paths[4:5]),
            *(people[2].post("/posts", POST | {"tags": each[:5]}) for each in ORDERS[:4]),
            people[2].post("/posts", POST | {"status": "draft", "tags": order[::-1]}),
            change(admin, people[0], turn),
            run_repair(),
        ]
        found = statuses(await at_once(requests))
        assert set(found) <= {200, 201, 204, 404}, found
        await assert_right(client.database)
        await at_once(moderator.post(f"{path}/restore") for path in paths[2:])
        await assert_right(client.database)


def change(admin: Person, author: Person, turn: int) -> Awaitable[httpx2.Response]:
    """Delete an author, or restore them."""
    path = f"/users/{author.id}"
    return admin.post(f"{path}/restore") if turn % 2 else admin.delete(path)


async def test_a_count_is_repaired_beside_somebody_who_counts(
    client: Client, other_process: Database
) -> None:
    """The tag is locked: the mending waits, and counts what was committed meanwhile."""
    ana = await client.user()
    await ana.write(tags=["a"])
    async with client.database.begin() as session:
        tag = (await session.execute(select(Tag))).scalar_one()
        tag.post_count = 5
    recounts = []
    async with other_process.begin() as session:
        # As a request that has just counted a post of its own, and is yet to commit.
        await session.execute(select(Tag.id).where(Tag.id == tag.id).with_for_update())
        locked = await session.get_one(Tag, tag.id)
        locked.post_count = 6
        await session.flush()
        recount = client.database.run(partial(tags.recount, tag_id=tag.id))
        recounts.append(asyncio.create_task(recount))
        await asyncio.wait(recounts, timeout=0.3)
        assert not recounts[0].done()
    assert await recounts[0] == 1
    assert await assert_right(client.database) == {"a": 1}


async def test_drafts_and_posts_with_the_same_tags_do_not_wait_in_circles(
    client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "app.request")
    ana = await client.user()
    await ana.write(tags=NAMES)
    for _ in range(3):
        responses = await at_once(
            ana.post("/posts", POST | {"status": status, "tags": order})
            for order, status in itertools.product(ORDERS, ["draft", "published"])
        )
        assert statuses(responses) == {201: 16}
    assert await assert_right(client.database) == dict.fromkeys(NAMES, 25)
    assert retries(caplog) <= MOST_RETRIES
