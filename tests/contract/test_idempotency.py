"""Idempotency-Key: a request that creates can be repeated and creates once."""

from __future__ import annotations

import json
from typing import Any

import pytest
from sqlalchemy import func, select

from app.core.permissions import Permission
from app.crud import user_queries
from app.models import Base
from app.models.base import utc_now
from app.models.idempotency_keys import IdempotencyKey
from tests.support.client import Client, Person
from tests.support.concurrency import count
from tests.support.create_requests import (
    CREATE_REQUESTS,
    CreateRequest,
    each_behind_a_login,
    each_create_request,
    is_replay,
    replayed,
    send,
)
from tests.support.openapi import Contract
from tests.support.people import new_user, user_with
from tests.support.purging import empty

KEY = "6f1c2a70-key"


@pytest.fixture
async def admin(client: Client) -> Person:
    return await new_user(client, ["admin"])


async def rows(client: Client) -> dict[str, int]:
    """How many rows every table has."""
    async with client.database.begin(readonly=True) as session:
        found = {}
        for table in Base.metadata.sorted_tables:
            counted = select(func.count()).select_from(table)
            found[table.name] = (await session.execute(counted)).scalar_one()
        return found


async def kept(client: Client) -> int:
    return await count(client.database, select(func.count()).select_from(IdempotencyKey))


def test_every_operation_that_creates_is_tested(contract: Contract) -> None:
    found = {
        path.removeprefix("/api/v1")
        for _, path, operation in contract.operations.values()
        if "201" in operation["responses"]
    }
    assert found == {each.path for each in CREATE_REQUESTS}


@each_create_request
async def test_the_same_request_again_is_answered_the_same(
    admin: Person, create_request: CreateRequest
) -> None:
    """Byte by byte, and nothing happens: no row in any table, no mail, no event."""
    body = create_request.body()
    plain = await admin.post(create_request.path, create_request.body())
    first = await send(admin, create_request.path, body, KEY)
    assert (first.status_code, is_replay(first)) == (201, False)
    assert set(first.headers) == set(plain.headers), "as without a key"
    assert (await admin.get(first.headers["location"])).headers["etag"] == first.headers["etag"]
    before = await rows(admin)
    shuffled = dict(reversed(body.items()))
    for again in (body, body, shuffled):
        response = await send(admin, create_request.path, again, KEY, **{"Accept-Language": "es"})
        assert replayed(response) == replayed(first)
        assert response.headers["idempotency-replayed"] == "true"
        assert response.headers["x-request-id"] != first.headers["x-request-id"]
    assert await rows(admin) == before


@each_create_request
async def test_another_request_with_the_same_key_is_refused(
    admin: Person, create_request: CreateRequest
) -> None:
    body = create_request.body()
    first = await send(admin, create_request.path, body, KEY)
    before = await rows(admin)
    others = [body | {"name": "Somebody else", "title": "x"}, body | {"unknown": 1}]
    if create_request.path != "/auth/register":
        others += [create_request.body(), {}]
    for other in others:
        response = await send(admin, create_request.path, other, KEY)
        assert response.status_code == 422
        assert response.json()["code"] == "idempotency_key_reused"
        assert response.json()["errors"][0]["field"] == "Idempotency-Key"
    paths = [each.path for each in CREATE_REQUESTS[1:] if "{" not in each.path]
    paths = [path for path in paths if path != create_request.path]
    for path in paths if create_request.path != "/auth/register" else ():
        response = await send(admin, path, body, KEY)
        assert response.json()["code"] == "idempotency_key_reused", "the path counts too"
    assert await rows(admin) == before
    assert replayed(await send(admin, create_request.path, body, KEY)) == replayed(first)


@each_create_request
async def test_another_key_or_none_is_another_request(
    admin: Person, create_request: CreateRequest
) -> None:
    body = create_request.body()
    first = await send(admin, create_request.path, body, KEY)
    for response in (
        await send(admin, create_request.path, body, KEY.upper()),
        await admin.post(create_request.path, body),
    ):
        assert not is_replay(response)
        if not create_request.is_unique:
            assert response.json()["id"] != first.json()["id"]
        else:
            assert response.status_code == 409, "taken"


@each_behind_a_login
async def test_a_key_is_its_callers_alone(client: Client, create_request: CreateRequest) -> None:
    """A caller who guesses a key and knows the request does not get the stored response."""
    people = [await new_user(client, ["admin"]) for _ in range(2)]
    path, body = create_request.path, create_request.body()
    first = await send(people[0], path, body, KEY)
    assert first.status_code == 201
    other = await send(people[1], path, body, KEY)
    assert not is_replay(other)
    assert other.status_code == (409 if create_request.is_unique else 201)
    assert replayed(await send(people[0], path, body, KEY)) == replayed(first)
    nobody = await send(client, path, body, KEY)
    assert nobody.status_code == 401


async def test_keys_of_different_addresses_never_meet(client: Client) -> None:
    """A key counts only for the address it was sent with, in upper or lower case."""
    body = CREATE_REQUESTS[0].body()
    first = await send(client, "/auth/register", body, KEY)
    other = await send(client, "/auth/register", CREATE_REQUESTS[0].body(), KEY)
    assert (other.status_code, is_replay(other)) == (201, False)
    shouted = body | {"email": body["email"].upper()}
    reused = await send(client, "/auth/register", shouted, KEY)
    assert reused.json()["code"] == "idempotency_key_reused"
    wrong: list[Any] = ["\ud800", "\u2028", 1, None, [], ""]
    for email in wrong:
        headers = {"Idempotency-Key": KEY, "Content-Type": "application/json"}
        content = json.dumps(body | {"email": email})
        refused = await client.request(
            "POST", "/api/v1/auth/register", content=content, headers=headers
        )
        assert refused.status_code == 422
        assert refused.json()["code"] == "validation_error"
    assert replayed(await send(client, "/auth/register", body, KEY)) == replayed(first)


@each_behind_a_login
async def test_permissions_are_checked_before_the_key(
    client: Client, create_request: CreateRequest
) -> None:
    """A caller who may no longer create does not get the stored response either."""
    admin, ana = await new_user(client, ["admin"]), await new_user(client, ["admin"])
    path, body = create_request.path, create_request.body()
    first = await send(ana, path, body, KEY)
    role = next(
        each["id"]
        for each in (await admin.get(f"/users/{ana.id}/roles")).json()["items"]
        if each["name"] == "admin"
    )
    await admin.delete(f"/users/{ana.id}/roles/{role}")
    for key in (KEY, "bad key"):
        assert (await send(ana, path, body, key)).status_code == 403
    await admin.put(f"/users/{ana.id}/roles/{role}")
    assert replayed(await send(ana, path, body, KEY)) == replayed(first)
    await admin.delete(f"/users/{ana.id}")
    assert (await send(ana, path, body, KEY)).status_code == 401


async def test_registration_that_was_closed_meanwhile_stays_closed(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = CREATE_REQUESTS[0].body()
    await send(client, "/auth/register", body, KEY)
    monkeypatch.setattr(client.app.state.settings, "registration_enabled", False)
    assert (await send(client, "/auth/register", body, KEY)).status_code == 403


async def test_a_replay_tells_of_what_is_gone(client: Client) -> None:
    """It repeats what was answered, not how things stand."""
    ana = await new_user(client)
    body = CREATE_REQUESTS[3].body()
    first = await send(ana, "/posts", body, KEY)
    await ana.delete(first.headers["location"])
    assert replayed(await send(ana, "/posts", body, KEY)) == replayed(first)
    assert (await ana.get(first.headers["location"])).status_code == 404


async def test_a_replay_shows_nobody_who_was_deleted(client: Client) -> None:
    """It does not create them again; once restored, they are in the response as before."""
    admin, other = await new_user(client, ["admin"]), await new_user(client, ["admin"])
    creator = await user_with(client, Permission.users_write)
    for person, key in ((admin, KEY), (creator, KEY)):
        body = CREATE_REQUESTS[1].body()
        first = await send(person, "/users", body, key)
        path = first.headers["location"]
        assert is_replay(await send(person, "/users", body, key))
        assert (await other.patch(path, {"is_active": False})).status_code == 200
        assert replayed(await send(person, "/users", body, key)) == replayed(first), (
            "disabled, not gone"
        )
        for _ in range(2):
            assert (await other.delete(path)).status_code == 204
            before = await rows(client)
            for again in (body, dict(reversed(body.items()))):
                gone = await send(person, "/users", again, key)
                assert (gone.status_code, gone.json()["code"]) == (404, "not_found")
                assert not is_replay(gone)
                assert "location" not in gone.headers
                assert body["email"] not in gone.text
                assert body["name"] not in gone.text
            reused = await send(person, "/users", CREATE_REQUESTS[1].body(), key)
            assert reused.json()["code"] == "idempotency_key_reused"
            assert await rows(client) == before
            assert (await other.post(f"{path}/restore")).status_code == 200
            assert replayed(await send(person, "/users", body, key)) == replayed(first)
        assert (await other.delete(path)).status_code == 204
        anew = await send(person, "/users", body, f"{key}-2")
        assert (anew.status_code, is_replay(anew)) == (201, False)
        assert (await send(person, "/users", body, key)).status_code == 404
        assert (await empty(client.database, before=utc_now()))["users"] == 1
        assert (await send(person, "/users", body, key)).status_code == 404


@each_create_request
async def test_a_refusal_is_not_remembered(admin: Person, create_request: CreateRequest) -> None:
    body = create_request.body()
    wrong = await send(admin, create_request.path, body | {"unknown": 1}, KEY)
    assert wrong.status_code == 422
    assert wrong.json()["code"] == "validation_error"
    if create_request.is_unique:
        taken = create_request.body()
        assert (await admin.post(create_request.path, taken)).status_code == 201
        assert (await send(admin, create_request.path, taken, KEY)).status_code == 409
    assert await kept(admin) == 0
    right = await send(admin, create_request.path, body, KEY)
    assert (right.status_code, is_replay(right)) == (201, False)


async def test_what_was_rolled_back_is_not_remembered(
    admin: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The key is written with what it tells of, or not at all."""
    body = CREATE_REQUESTS[1].body()
    with monkeypatch.context() as patch:

        async def broken(*_: Any, **__: Any) -> None:
            raise RuntimeError

        patch.setattr(user_queries, "show_all", broken)
        assert (await send(admin, "/users", body, KEY)).status_code == 500
    assert await kept(admin) == 0
    assert (await send(admin, "/users", body, KEY)).status_code == 201
    assert await kept(admin) == 1
