"""Idempotency-Key: what creates can be sent again, and creates once."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import func, select, update

from app.core.permissions import Permission
from app.crud import accounts
from app.models import Base
from app.models.base import INCLUDE_DELETED, utc_now
from app.models.idempotency import IdempotencyKey
from app.models.posts import Post
from tests.support.canaries import PASSWORD
from tests.support.client import Client, Person
from tests.support.crowd import count
from tests.support.keys import CREATING, Creating, is_replay, send, told
from tests.support.openapi import Contract
from tests.support.people import holder, newcomer
from tests.support.purging import empty
from tests.support.sql import watched

each_creating = pytest.mark.parametrize("creating", CREATING, ids=lambda each: each.path)
KEY = "6f1c2a70-key"


@pytest.fixture
async def admin(client: Client) -> Person:
    return await newcomer(client, ["admin"])


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


async def expire(client: Client) -> None:
    """Let a day pass for every key."""
    async with client.database.begin() as session:
        past = utc_now() - timedelta(seconds=1)
        await session.execute(update(IdempotencyKey).values(expires_at=past))


def test_every_operation_that_creates_is_tested(contract: Contract) -> None:
    found = {
        path.removeprefix("/api/v1")
        for _, path, operation in contract.operations.values()
        if "201" in operation["responses"]
    }
    assert found == {each.path for each in CREATING}


@each_creating
async def test_the_same_request_again_is_answered_the_same(
    admin: Person, creating: Creating
) -> None:
    """Byte by byte, and nothing happens: no row in any table, no mail, no event."""
    body = creating.body()
    plain = await admin.post(creating.path, creating.body())
    first = await send(admin, creating.path, body, KEY)
    assert (first.status_code, is_replay(first)) == (201, False)
    assert set(first.headers) == set(plain.headers), "as without a key"
    assert (await admin.get(first.headers["location"])).headers["etag"] == first.headers["etag"]
    before = await rows(admin)
    shuffled = dict(reversed(body.items()))
    for again in (body, body, shuffled):
        response = await send(admin, creating.path, again, KEY, **{"Accept-Language": "es"})
        assert told(response) == told(first)
        assert response.headers["idempotency-replayed"] == "true"
        assert response.headers["x-request-id"] != first.headers["x-request-id"]
    assert await rows(admin) == before


@each_creating
async def test_another_request_with_the_same_key_is_refused(
    admin: Person, creating: Creating
) -> None:
    body = creating.body()
    first = await send(admin, creating.path, body, KEY)
    before = await rows(admin)
    others = [body | {"name": "Somebody else", "title": "x"}, body | {"unknown": 1}]
    if creating.path != "/auth/register":
        others += [creating.body(), {}]
    for other in others:
        response = await send(admin, creating.path, other, KEY)
        assert response.status_code == 422
        assert response.json()["code"] == "idempotency_key_reused"
        assert response.json()["errors"][0]["field"] == "Idempotency-Key"
    paths = [each.path for each in CREATING[1:] if each != creating]
    for path in paths if creating.path != "/auth/register" else ():
        response = await send(admin, path, body, KEY)
        assert response.json()["code"] == "idempotency_key_reused", "the path counts too"
    assert await rows(admin) == before
    assert told(await send(admin, creating.path, body, KEY)) == told(first)


@each_creating
async def test_another_key_or_none_is_another_request(admin: Person, creating: Creating) -> None:
    body = creating.body()
    first = await send(admin, creating.path, body, KEY)
    for response in (
        await send(admin, creating.path, body, KEY.upper()),
        await admin.post(creating.path, body),
    ):
        assert not is_replay(response)
        if creating.path == "/posts":
            assert response.json()["id"] != first.json()["id"]
        else:
            assert response.status_code == 409, "taken"


@pytest.mark.parametrize("path", ["/users", "/roles", "/posts"])
async def test_a_key_is_its_callers_alone(client: Client, path: str) -> None:
    """Whoever guesses a key, and knows the request, gets nobody's answer."""
    people = [await newcomer(client, ["admin"]) for _ in range(2)]
    creating = Creating(path)
    body = creating.body()
    first = await send(people[0], path, body, KEY)
    assert first.status_code == 201
    other = await send(people[1], path, body, KEY)
    assert not is_replay(other)
    assert other.status_code == (201 if path == "/posts" else 409)
    assert told(await send(people[0], path, body, KEY)) == told(first)
    nobody = await send(client, path, body, KEY)
    assert nobody.status_code == 401


async def test_keys_of_different_addresses_never_meet(client: Client) -> None:
    """Whoever registers is told of no key but those of their own address, however it is written."""
    body = CREATING[0].body()
    first = await send(client, "/auth/register", body, KEY)
    other = await send(client, "/auth/register", CREATING[0].body(), KEY)
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
    assert told(await send(client, "/auth/register", body, KEY)) == told(first)


@pytest.mark.parametrize("path", ["/users", "/roles", "/posts"])
async def test_the_gate_comes_first(client: Client, path: str) -> None:
    """Who may not create any more is not told either what they created."""
    admin, ana = await newcomer(client, ["admin"]), await newcomer(client, ["admin"])
    creating = Creating(path)
    body = creating.body()
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
    assert told(await send(ana, path, body, KEY)) == told(first)
    await admin.delete(f"/users/{ana.id}")
    assert (await send(ana, path, body, KEY)).status_code == 401


async def test_registration_that_was_closed_meanwhile_stays_closed(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = CREATING[0].body()
    await send(client, "/auth/register", body, KEY)
    monkeypatch.setattr(client.app.state.settings, "registration_enabled", False)
    assert (await send(client, "/auth/register", body, KEY)).status_code == 403


async def test_a_replay_tells_of_what_is_gone(client: Client) -> None:
    """It repeats what was answered, not how things stand."""
    ana = await newcomer(client)
    body = CREATING[3].body()
    first = await send(ana, "/posts", body, KEY)
    await ana.delete(first.headers["location"])
    assert told(await send(ana, "/posts", body, KEY)) == told(first)
    assert (await ana.get(first.headers["location"])).status_code == 404


async def test_a_replay_shows_nobody_who_was_deleted(client: Client) -> None:
    """Nor does it make them again; restored, they are told of as before."""
    admin, other = await newcomer(client, ["admin"]), await newcomer(client, ["admin"])
    creator = await holder(client, Permission.users_write)
    for person, key in ((admin, KEY), (creator, KEY)):
        body = CREATING[1].body()
        first = await send(person, "/users", body, key)
        path = first.headers["location"]
        assert is_replay(await send(person, "/users", body, key))
        assert (await other.patch(path, {"is_active": False})).status_code == 200
        assert told(await send(person, "/users", body, key)) == told(first), "disabled, not gone"
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
            reused = await send(person, "/users", CREATING[1].body(), key)
            assert reused.json()["code"] == "idempotency_key_reused"
            assert await rows(client) == before
            assert (await other.post(f"{path}/restore")).status_code == 200
            assert told(await send(person, "/users", body, key)) == told(first)
        assert (await other.delete(path)).status_code == 204
        anew = await send(person, "/users", body, f"{key}-2")
        assert (anew.status_code, is_replay(anew)) == (201, False)
        assert (await send(person, "/users", body, key)).status_code == 404
        assert (await empty(client.database, before=utc_now()))["users"] == 1
        assert (await send(person, "/users", body, key)).status_code == 404


@each_creating
async def test_a_refusal_is_not_remembered(admin: Person, creating: Creating) -> None:
    body = creating.body()
    wrong = await send(admin, creating.path, body | {"unknown": 1}, KEY)
    assert wrong.status_code == 422
    assert wrong.json()["code"] == "validation_error"
    if creating.path != "/posts":
        taken = creating.body()
        assert (await admin.post(creating.path, taken)).status_code == 201
        assert (await send(admin, creating.path, taken, KEY)).status_code == 409
    assert await kept(admin) == 0
    right = await send(admin, creating.path, body, KEY)
    assert (right.status_code, is_replay(right)) == (201, False)


async def test_what_was_rolled_back_is_not_remembered(
    admin: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The key is written with what it tells of, or not at all."""
    body = CREATING[1].body()
    with monkeypatch.context() as patch:

        async def broken(*_: Any, **__: Any) -> None:
            raise RuntimeError

        patch.setattr(accounts, "show_all", broken)
        assert (await send(admin, "/users", body, KEY)).status_code == 500
    assert await kept(admin) == 0
    assert (await send(admin, "/users", body, KEY)).status_code == 201
    assert await kept(admin) == 1


@each_creating
async def test_a_key_that_has_expired_is_a_new_one(admin: Person, creating: Creating) -> None:
    body = creating.body()
    await send(admin, creating.path, body, KEY)
    await expire(admin)
    second = await send(admin, creating.path, creating.body(), KEY)
    assert (second.status_code, is_replay(second)) == (201, False)
    is_another = creating.path == "/auth/register"  # address, and so another key
    assert await kept(admin) == 1 + is_another


async def test_a_registration_whose_key_has_expired_is_judged_anew(client: Client) -> None:
    body = CREATING[0].body()
    await send(client, "/auth/register", body, KEY)
    await expire(client)
    again = await send(client, "/auth/register", body, KEY)
    assert again.json()["code"] == "email_taken"
    assert await kept(client) == 0


async def test_keys_are_kept_for_a_day_and_purged(client: Client) -> None:
    ana = await newcomer(client)
    body, started = CREATING[3].body(), utc_now()
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
    ana, luis = await newcomer(client), await newcomer(client)
    for person in (ana, luis):
        await send(person, "/posts", CREATING[3].body(), KEY)
    admin = await newcomer(client, ["admin"])
    await admin.delete(f"/users/{ana.id}")
    await empty(client.database, before=utc_now() + timedelta(days=1))
    async with client.database.begin(readonly=True) as session:
        assert [*await session.scalars(select(IdempotencyKey.user_id))] == [luis.id]


async def test_neither_the_key_nor_the_request_is_kept(client: Client) -> None:
    """The body holds a password; a hash of it that anybody could make is as good as kept."""
    await send(client, "/auth/register", CREATING[0].body(), KEY)
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
    body = CREATING[0].body()
    first = await send(client, "/auth/register", body, KEY)
    settings = client.app.state.settings
    old, new = settings.secret_key, SecretStr("n" * 40)
    for fallbacks, status in ([old], 201), ([], 422):
        monkeypatch.setattr(settings, "secret_key", new)
        monkeypatch.setattr(settings, "secret_key_fallbacks", fallbacks)
        again = await send(client, "/auth/register", body, KEY)
        assert again.status_code == status
        assert status == 422 or told(again) == told(first)


async def test_a_request_without_a_key_costs_no_statement_more(client: Client) -> None:
    ana = await newcomer(client)
    admin = await holder(client, Permission.roles_write, Permission.users_read)
    for person, creating in ((ana, CREATING[3]), (admin, CREATING[2])):
        with watched(client.database) as sent:
            assert (await person.post(creating.path, creating.body())).status_code == 201
        assert not [each for each in sent if "idempotency" in each.text]
        with watched(client.database) as sent:
            await send(person, creating.path, creating.body(), KEY)
        assert [each for each in sent if "idempotency" in each.text]


async def test_an_answer_is_kept_as_it_was_sent(client: Client) -> None:
    """Whatever the models and their texts become: what was answered is bytes."""
    ana = await newcomer(client)
    first = await send(ana, "/posts", CREATING[3].body(), KEY)
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
    admin, body = await newcomer(client, ["admin"]), CREATING[0].body()
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
