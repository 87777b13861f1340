"""The format of an Idempotency-Key, and bodies that are malformed."""

from __future__ import annotations

import pytest
from sqlalchemy import func, select

from app.models.posts import Post
from tests.support.client import Client
from tests.support.concurrency import count
from tests.support.create_requests import CREATE_REQUESTS, is_replay, send
from tests.support.people import new_user

KEY = "6f1c2a70-key"


@pytest.mark.parametrize(
    "value",
    ["", " ", "a b", "a\tb", "ñ", "x" * 256, "a, b", "\x7f", "\x00", "a\x1fb"],
    ids=lambda value: f"{value[:9]!a}",
)
async def test_a_key_has_a_form(client: Client, value: str) -> None:
    ana = await new_user(client)
    raw = {name.encode(): text.encode() for name, text in ana.headers.items()}
    headers = raw | {b"Idempotency-Key": value.encode("latin-1")}
    response = await ana.http.post("/api/v1/posts", json=CREATE_REQUESTS[3].body(), headers=headers)
    client.contract.check(response)
    assert response.status_code == 422
    (error,) = response.json()["errors"]
    assert (error["field"], error["type"]) == ("Idempotency-Key", "idempotency_key_invalid")
    assert await count(client.database, select(func.count()).select_from(Post)) == 0


async def test_every_key_of_the_form_is_taken_and_no_two_are_one(client: Client) -> None:
    ana = await new_user(client)
    visible = "".join(map(chr, range(33, 127)))
    for key in (visible, visible[::-1], "x" * 255, "x" * 254, "x", "X", '"x"', "a,b"):
        for is_again in (False, True):
            response = await send(ana, "/posts", {"title": key[:99], "content": ""}, key)
            assert (response.status_code, is_replay(response)) == (201, is_again), key


async def test_two_keys_are_none(client: Client) -> None:
    ana = await new_user(client)
    twice = [*ana.headers.items(), ("Idempotency-Key", KEY), ("Idempotency-Key", KEY)]
    response = await ana.http.post("/api/v1/posts", json=CREATE_REQUESTS[3].body(), headers=twice)
    assert response.status_code == 422
    assert response.json()["errors"][0]["type"] == "idempotency_key_invalid"


async def test_bodies_that_are_none_are_refused_as_without_a_key(client: Client) -> None:
    ana = await new_user(client)
    deep = b"[" * 3_000 + b"]" * 3_000
    for content in (b"", b"{", b"\xff", b"null", b"NaN", deep, b'{"a": ' + b"9" * 5_000 + b"}"):
        told_of = []
        for extra in ({}, {"Idempotency-Key": KEY}):
            headers = ana.headers | {"Content-Type": "application/json"} | extra
            response = await ana.http.post("/api/v1/posts", content=content, headers=headers)
            client.contract.check(response)
            told_of.append((response.status_code, response.json()["code"]))
        assert told_of[0] == told_of[1], content[:9]
        assert told_of[0][0] in {400, 422}
