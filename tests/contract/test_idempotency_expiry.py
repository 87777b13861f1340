"""How long an Idempotency-Key and its answer are kept, and what is kept of them."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from pydantic import SecretStr
from sqlalchemy import func, select, update

from app.core.permissions import Permission
from app.models.base import INCLUDE_DELETED, utc_now
from app.models.idempotency_keys import IdempotencyKey
from app.models.posts import Post
from tests.support.canaries import PASSWORD
from tests.support.client import Client, Person
from tests.support.concurrency import count
from tests.support.create_requests import (
    CREATE_REQUESTS,
    CreateRequest,
    each_create_request,
    is_replay,
    replayed,
    send,
)
from tests.support.people import new_user, user_with
from tests.support.purging import empty
from tests.support.sql import watched

KEY = "6f1c2a70-key"


@pytest.fixture
async def admin(client: Client) -> Person:
    return await new_user(client, ["admin"])


async def kept(client: Client) -> int:
    return await count(client.database, select(func.count()).select_from(IdempotencyKey))


async def expire(client: Client) -> None:
    """Let a day pass for every key."""
    async with client.database.begin() as session:
        past = utc_now() - timedelta(seconds=1)
        await session.execute(update(IdempotencyKey).values(expires_at=past))


@each_create_request
async def test_a_key_that_has_expired_is_a_new_one(
    admin: Person, create_request: CreateRequest
) -> None:
    body = create_request.body()
    await send(admin, create_request.path, body, KEY)
    await expire(admin)
    second = await send(admin, create_request.path, create_request.body(), KEY)
    assert (second.status_code, is_replay(second)) == (201, False)
    is_another = create_request.path == "/auth/register"  # address, and so another key
    assert await kept(admin) == 1 + is_another


async def test_a_registration_whose_key_has_expired_is_judged_anew(client: Client) -> None:
    body = CREATE_REQUESTS[0].body()
    await send(client, "/auth/register", body, KEY)
    await expire(client)
    again = await send(client, "/auth/register", body, KEY)
    assert again.json()["code"] == "email_taken"
    assert await kept(client) == 0


async def test_keys_are_kept_for_a_day_and_purged(client: Client) -> None:
    ana = await new_user(client)
    body, started = CREATE_REQUESTS[3].body(), utc_now()
    await send(ana, "/posts", body, KEY)
    async with client.database.begin(readonly=True) as session:
        expires = await session.scalar(select(IdempotencyKey.expires_at))
    assert expires is not None
    assert timedelta(0) <= expires - started - timedelta(hours=24) < timedelta(minutes=5)
    long_ago = utc_now() - timedelta(days=30)
    for purged in (0, 1):
        counts = await empty(client.database, before=long_ago)
        assert counts["idempotency keys"] == purged
        await expire(client)
    assert await kept(client) == 0


async def test_a_users_answers_go_with_them(client: Client) -> None:
    ana, luis = await new_user(client), await new_user(client)
    for person in (ana, luis):
        await send(person, "/posts", CREATE_REQUESTS[3].body(), KEY)
    admin = await new_user(client, ["admin"])
    await admin.delete(f"/users/{ana.id}")
    await empty(client.database, before=utc_now() + timedelta(days=1))
    async with client.database.begin(readonly=True) as session:
        assert [*await session.scalars(select(IdempotencyKey.user_id))] == [luis.id]


async def test_neither_the_key_nor_the_request_is_kept(client: Client) -> None:
    """The body holds a password; a hash of it that anybody could make is as good as kept."""
    await send(client, "/auth/register", CREATE_REQUESTS[0].body(), KEY)
    async with client.database.begin(readonly=True) as session:
        row = (await session.execute(select(IdempotencyKey.__table__))).one()
    assert KEY not in repr(row)
    assert PASSWORD not in repr(row)
    assert len({row.key_hash, row.fingerprint}) == 2


async def test_keys_outlive_a_new_secret_but_not_the_end_of_the_old_one(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the secret nobody can tell whether it is the same request: better refused than done
    twice."""
    body = CREATE_REQUESTS[0].body()
    first = await send(client, "/auth/register", body, KEY)
    settings = client.app.state.settings
    old, new = settings.secret_key, SecretStr("n" * 40)
    for fallbacks, status in ([old], 201), ([], 422):
        monkeypatch.setattr(settings, "secret_key", new)
        monkeypatch.setattr(settings, "secret_key_fallbacks", fallbacks)
        again = await send(client, "/auth/register", body, KEY)
        assert again.status_code == status
        assert status == 422 or replayed(again) == replayed(first)


async def test_a_request_without_a_key_costs_no_statement_more(client: Client) -> None:
    ana = await new_user(client)
    admin = await user_with(client, Permission.roles_write, Permission.users_read)
    for person, create_request in ((ana, CREATE_REQUESTS[3]), (admin, CREATE_REQUESTS[2])):
        with watched(client.database) as sent:
            assert (
                await person.post(create_request.path, create_request.body())
            ).status_code == 201
        assert not [each for each in sent if "idempotency" in each.text]
        with watched(client.database) as sent:
            await send(person, create_request.path, create_request.body(), KEY)
        assert [each for each in sent if "idempotency" in each.text]


async def test_an_answer_is_kept_as_it_was_sent(client: Client) -> None:
    """Whatever the models and their texts become: what was answered is bytes."""
    ana = await new_user(client)
    first = await send(ana, "/posts", CREATE_REQUESTS[3].body(), KEY)
    async with client.database.begin() as session:
        await session.execute(
            update(IdempotencyKey).values(body='{"id":1}', headers={"location": "/x"}, status=201)
        )
        everything = select(Post.id).execution_options(**{INCLUDE_DELETED: True})
        assert [*await session.scalars(everything)] == [first.json()["id"]]
    headers = ana.headers | {"Idempotency-Key": KEY}
    body = json.loads(first.request.content)
    again = await ana.http.post("/api/v1/posts", json=body, headers=headers)
    assert (again.content, again.headers["location"]) == (b'{"id":1}', "/x")


@pytest.mark.parametrize("end", ["deleted by an admin", "deleted by themselves", "disabled"])
async def test_an_account_that_is_gone_is_not_shown_to_who_registers_it_again(
    client: Client, end: str
) -> None:
    """The answer to a registration is a copy of the account, and open to anybody with the key."""
    admin, body = await new_user(client, ["admin"]), CREATE_REQUESTS[0].body()
    first = await send(client, "/auth/register", body, KEY)
    path = f"/users/{first.json()['id']}"
    assert is_replay(await send(client, "/auth/register", body, KEY))
    if end == "deleted by an admin":
        assert (await admin.delete(path)).status_code == 204
    elif end == "disabled":
        assert (await admin.patch(path, {"is_active": False})).status_code == 200
    else:
        person = await client.person(body)
        gone = await person.delete("/users/me", {"current_password": PASSWORD})
        assert gone.status_code == 204
    assert await kept(client) == 0
    again = await send(client, "/auth/register", body, KEY)
    assert not is_replay(again)
    if end == "disabled":
        assert again.json()["code"] == "email_taken"
    else:
        assert again.status_code == 201
        assert again.json()["id"] != first.json()["id"]
