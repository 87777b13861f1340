"""Concurrent requests about accounts and their posts keep every invariant."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path

import httpx2
import pytest
from fastapi import FastAPI
from passlib.hash import bcrypt
from sqlalchemy import func, select

from app.models.outbox import Mail
from app.models.posts import Post
from app.models.tags import PostTag, Tag
from app.models.users import User, email_key
from tests.conftest import wipe
from tests.support.client import PASSWORD, Client, Person
from tests.support.concurrency import at_once, count, patient_app, statuses


@pytest.fixture
async def app(database_url: str, tmp_path: Path) -> AsyncIterator[FastAPI]:
    """Takes the place of the common one, for `client` and all that is built on it."""
    async with patient_app(database_url, tmp_path) as patient:
        yield patient
        await wipe(patient.state.database)


# --- Accounts ------------------------------------------------------------------------------------


def spellings(name: str) -> list[str]:
    """One address in mixed case, with spaces, and in full-width letters (NFKC)."""
    wide = "".join(chr(ord(letter) + 0xFEE0) for letter in name)
    return [
        f"{name}@example.com",
        f"{name.upper()}@EXAMPLE.com",
        f"  {name.title()}@Example.Com ",
        f"{wide}@example.com",
        f"\t{wide}@EXAMPLE.COM\n",
    ]


@pytest.mark.parametrize("name", ["ana", "luis", "maria"])
async def test_one_of_fifty_registrations_of_an_address_wins(client: Client, name: str) -> None:
    """A6: exactly one 201, the rest 409; one account and one mail."""
    addresses = spellings(name) * 10
    responses = await at_once(
        client.post("/auth/register", {"email": address, "name": "Ana", "password": PASSWORD})
        for address in addresses
    )
    assert statuses(responses) == {201: 1, 409: 49}
    taken = {response.json()["code"] for response in responses if response.status_code == 409}
    assert taken == {"email_taken"}
    key = email_key(f"{name}@example.com")
    same = select(func.count()).select_from(User).where(User.email_key == key)
    assert await count(client.database, same) == 1
    assert await count(client.database, select(func.count()).select_from(User)) == 1
    assert await count(client.database, select(func.count()).select_from(Mail)) == 1


async def test_restores_and_registrations_of_an_address_leave_one_live_account(
    client: Client,
) -> None:
    """A17: 20 parallel restores and registrations, with two accounts in the trash."""
    admin = await client.admin()
    email = "again@example.com"
    gone = []
    for _ in range(2):
        account = await client.register(email=email)
        assert (await admin.delete(f"/users/{account['id']}")).status_code == 204
        gone.append(account["id"])

    def register() -> Awaitable[httpx2.Response]:
        body = {"email": email.title(), "name": "Ana", "password": PASSWORD}
        return client.post("/auth/register", body)

    for _ in range(3):
        restores = [admin.post(f"/users/{gone[number % 2]}/restore") for number in range(10)]
        requests = [*zip(restores, [register() for _ in range(10)], strict=True)]
        responses = await at_once(itertools.chain(*requests))
        won = {response.json()["id"] for response in responses if response.is_success}
        assert len(won) == 1, statuses(responses)
        assert set(statuses(responses)) <= {200, 201, 409}
        live = select(func.count()).where(User.email_key == email, User.deleted_at.is_(None))
        assert await count(client.database, live) == 1
        assert (await admin.delete(f"/users/{won.pop()}")).status_code == 204


async def test_parallel_logins_all_succeed(client: Client) -> None:
    """A47: ten right logins at once do not get in each other's way."""
    account = await client.register()
    tokens = await asyncio.gather(*(client.login(account["email"]) for _ in range(10)))
    assert len(set(tokens)) == 10


async def test_parallel_logins_all_succeed_while_an_old_hash_is_replaced(client: Client) -> None:
    """A32: all of them verify the old hash; the first to be done stores a better one."""
    account = await client.register()
    async with client.database.begin() as session:
        user = await session.get_one(User, account["id"])
        user.password_hash = bcrypt.using(rounds=4).hash(PASSWORD)
    tokens = await asyncio.gather(*(client.login(account["email"]) for _ in range(10)))
    assert len(set(tokens)) == 10
    async with client.database.begin(readonly=True) as session:
        stored = (await session.get_one(User, account["id"])).password_hash
    assert stored is not None
    assert stored.startswith("$argon2id$"), "the old hash was really replaced"


# --- Posts ---------------------------------------------------------------------------------------


async def test_a_hundred_edits_at_once_all_succeed(client: Client) -> None:
    """A12: each reads the post and writes its next version; none is lost, none is refused."""
    ana = await client.user()
    post = await ana.write()
    path = f"/posts/{post['id']}"
    responses = await at_once(ana.patch(path, {"title": f"{number}"}) for number in range(100))
    assert statuses(responses) == {200: 100}
    assert sorted(response.json()["version"] for response in responses) == list(range(2, 102))
    assert (await ana.get(path)).json()["version"] == 101


async def test_tags_used_first_by_many_posts_at_once_are_made_once(client: Client) -> None:
    """A tag is created by use: of all posts that need it, one creates it and all get it."""
    ana = await client.user()
    old = await ana.write()
    names = sorted(f"tag {number}" for number in range(8))
    body = {"title": "A title", "content": "Some content."}
    # In another order each: the order of locks must not depend on the caller's.
    orders = [names[turn:] + names[:turn] for turn in range(len(names))]
    responses = await at_once(
        [
            *(ana.post("/posts", body | {"tags": orders[number % 8]}) for number in range(23)),
            ana.patch(f"/posts/{old['id']}", {"tags": names}),
        ]
    )
    assert statuses(responses) == {201: 23, 200: 1}
    assert all(response.json()["tags"] == names for response in responses)
    assert await count(client.database, select(func.count()).select_from(Tag)) == len(names)
    links = select(func.count()).select_from(PostTag)
    assert await count(client.database, links) == 24 * len(names)


async def test_nothing_of_an_author_stays_live_when_they_are_deleted(client: Client) -> None:
    """A17: posts written, restored and published while their author goes into the trash."""
    admin = await client.admin()
    for _ in range(4):
        ana = await client.user()
        draft, trashed = await ana.write(status="draft"), await ana.write()
        assert (await ana.delete(f"/posts/{trashed['id']}")).status_code == 204
        writing = asyncio.gather(*(write_until_refused(ana) for _ in range(3)))
        restored, published, deleted = await at_once(
            [
                ana.post(f"/posts/{trashed['id']}/restore"),
                ana.put(f"/posts/{draft['id']}/publication"),
                admin.delete(f"/users/{ana.id}"),
            ]
        )
        assert deleted.status_code == 204
        assert restored.status_code in {200, 401, 404, 409}
        assert published.status_code in {200, 401, 404}
        theirs = select(func.count()).where(Post.author_id == ana.id)
        everything = theirs.execution_options(include_deleted=True)
        assert await count(client.database, everything) == 2 + sum(await writing)
        assert await count(client.database, theirs) == 0


async def write_until_refused(author: Person) -> int:
    """How many posts were written until the author was gone."""
    body = {"title": "Late", "content": "Too late?", "status": "published"}
    for number in itertools.count():
        response = await author.post("/posts", body)
        if response.status_code == 401:
            return number
        assert response.status_code == 201
    raise AssertionError
