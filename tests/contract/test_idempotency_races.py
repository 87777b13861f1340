"""Concurrent requests with one key: executed once, and all get the same answer."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from sqlalchemy import func, select

from app.crud import idempotency_keys
from app.crud.idempotency_keys import IdempotencyRecord
from app.db.sqlite import Connection
from app.models.audit_events import AuditAct, AuditEvent
from app.models.idempotency_keys import IdempotencyKey
from app.models.outbox import Mail
from app.models.posts import Post
from app.models.users import User
from tests.conftest import wipe
from tests.support.client import Client
from tests.support.concurrency import at_once, count, patient_app, statuses
from tests.support.create_requests import (
    CREATE_REQUESTS,
    CreateRequest,
    each_create_request,
    is_replay,
    replayed,
    send,
)
from tests.support.people import new_user
from tests.support.sqlite import on_sqlite

REGISTER, POST = CREATE_REQUESTS[0], CREATE_REQUESTS[3]
REQUESTS = 20
_ACTS = [AuditAct.user_registered, AuditAct.user_created, AuditAct.role_created]
RECORDED = select(func.count()).where(AuditEvent.act.in_(_ACTS))


@pytest.fixture
async def app(database_url: str, tmp_path: Path) -> AsyncIterator[FastAPI]:
    """Takes the place of the common one, for `client` and all that is built on it."""
    async with patient_app(database_url, tmp_path) as patient:
        yield patient
        await wipe(patient.state.database)


async def totals(client: Client) -> dict[str, int]:
    counted = {
        model.__tablename__: select(func.count()).select_from(model)
        for model in (User, Post, Mail, IdempotencyKey)
    }
    return {name: await count(client.database, each) for name, each in counted.items()}


@each_create_request
async def test_of_many_at_once_one_creates_and_all_are_answered_it(
    client: Client, create_request: CreateRequest
) -> None:
    """One row, one mail, one event; the later requests get the response to the first."""
    admin = await new_user(client, ["admin"])
    before, recorded = await totals(client), await count(client.database, RECORDED)
    body = create_request.body()
    responses = await at_once(
        send(admin, create_request.path, body, "shared") for _ in range(REQUESTS)
    )
    assert statuses(responses) == {201: REQUESTS}
    assert len({replayed(each) for each in responses}) == 1
    assert sum(map(is_replay, responses)) == REQUESTS - 1
    is_person = create_request.path in {"/auth/register", "/users"}
    assert await totals(client) == {
        "users": before["users"] + is_person,
        "posts": before["posts"] + (create_request.path == "/posts"),
        "outbox": before["outbox"] + is_person,
        "idempotency_keys": 1,
    }
    is_recorded = is_person or create_request.path == "/roles"
    assert await count(client.database, RECORDED) == recorded + is_recorded


@each_create_request
async def test_of_many_with_one_key_and_different_bodies_one_creates(
    client: Client, create_request: CreateRequest
) -> None:
    admin = await new_user(client, ["admin"])
    body = create_request.body()
    bodies = [create_request.body() for _ in range(REQUESTS)]
    if create_request.path == "/auth/register":  # another address is another key
        bodies = [body | {"name": f"Name {number}"} for number in range(REQUESTS)]
    responses = await at_once(send(admin, create_request.path, body, "shared") for body in bodies)
    (winner, *_) = (body for body, each in zip(bodies, responses, strict=True) if each.is_success)
    same = bodies.count(winner)  # one, except where fields have few values
    assert statuses(responses) == {201: same, 422: REQUESTS - same}
    assert sum(map(is_replay, responses)) == same - 1
    codes = {each.json()["code"] for each in responses if each.status_code == 422}
    assert codes == {"idempotency_key_reused"}
    assert (await totals(client))["idempotency_keys"] == 1


async def test_keys_of_their_own_do_not_get_in_each_others_way(client: Client) -> None:
    people = [await new_user(client) for _ in range(3)]
    body = POST.body()
    requests = [send(each, "/posts", body, f"key-{turn}") for each in people for turn in range(9)]
    responses = await at_once(requests)
    assert statuses(responses) == {201: 27}
    assert len({each.json()["id"] for each in responses}) == 27


async def test_all_are_told_when_the_first_is_refused(client: Client) -> None:
    """A taken address: nobody waits for an answer that never comes."""
    body = REGISTER.body()
    await client.post("/auth/register", body)
    responses = await at_once(
        send(client, "/auth/register", body, "shared") for _ in range(REQUESTS)
    )
    assert statuses(responses) == {409: REQUESTS}
    assert {each.json()["code"] for each in responses} == {"email_taken"}
    assert (await totals(client))["idempotency_keys"] == 0


async def test_an_answer_that_is_still_on_its_way_is_a_conflict(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stored response cannot be read yet: the client gets a 409, and nothing is created."""
    body, find = REGISTER.body(), idempotency_keys.find

    async def blind(*_: Any) -> IdempotencyRecord | None:
        return None

    assert (await send(client, "/auth/register", body, "one")).status_code == 201
    monkeypatch.setattr(idempotency_keys, "find_or_delete_expired", blind)
    monkeypatch.setattr(idempotency_keys, "find", blind)
    assert (await send(client, "/auth/register", body, "one")).status_code == 409
    admin = await new_user(client, ["admin"])
    answers = [await send(admin, "/roles", CREATE_REQUESTS[2].body(), "one") for _ in range(2)]
    assert [each.status_code for each in answers] == [201, 409]
    assert answers[1].json()["code"] == "conflict"
    monkeypatch.setattr(idempotency_keys, "find", find)
    assert is_replay(await send(client, "/auth/register", body, "one"))
    assert (await totals(client))["users"] == 2


@on_sqlite
async def test_nobody_is_answered_before_the_commit_they_share(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second finds what the first has not committed yet; when that fails, it fails too."""
    ana = await new_user(client)
    body, commit = POST.body(), Connection.commit

    async def failing(_: Connection) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr(Connection, "commit", failing)
    responses: list[httpx2.Response] = await at_once(
        send(ana, "/posts", body, "shared") for _ in range(3)
    )
    assert statuses(responses) == {503: 3}
    monkeypatch.setattr(Connection, "commit", commit)
    assert (await totals(client))["posts"] == 0
    again = await send(ana, "/posts", body, "shared")
    assert (again.status_code, is_replay(again)) == (201, False)
