"""Request bodies are decoded strictly: UTF-8 without a byte-order mark, no duplicate members."""

from __future__ import annotations

import json
from typing import Annotated, Any
from urllib.parse import urlencode

import httpx2
import pytest
from fastapi import APIRouter, FastAPI, Query
from fastapi.testclient import TestClient

from app.core import i18n
from app.web import problems
from app.web.strict_route import StrictRoute
from tests.support import corpus
from tests.support.client import PASSWORD, Client, Person
from tests.support.routes import all_routes

on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True, scope="session")
BOM = b"\xef\xbb\xbf"
POST = {"title": "A title", "content": "Some content.", "tags": ["one"]}


async def send(
    person: Client, method: str, url: str, content: bytes, **headers: str
) -> httpx2.Response:
    headers = {"Content-Type": "application/json"} | headers
    return await person.request(method, url, content=content, headers=headers)


def refused(response: httpx2.Response) -> list[tuple[str, str]]:
    """The fields of a refusal, with what is wrong with each."""
    assert response.status_code == 422, response.text
    body = response.json()
    assert body["code"] == "validation_error"
    return [(error["field"], error["type"]) for error in body["errors"]]


def twice(body: dict[str, Any], name: str, value: object) -> bytes:
    """A body with one member more, at its end."""
    more = f", {json.dumps(name)}: {json.dumps(value)}}}"
    return json.dumps(body).encode()[:-1] + more.encode()


def test_every_route_that_takes_a_body_reads_it_strictly() -> None:
    taking = [route for route in all_routes() if route.body_field is not None]
    assert len(taking) > 15
    assert [route.name for route in taking if not isinstance(route, StrictRoute)] == []


@on_sqlite
async def test_no_operation_takes_a_mark_or_a_member_twice(client: Client) -> None:
    """With valid values, and the same ones: it is not the value that is refused."""
    admin = await client.admin()
    ids = dict.fromkeys(client.contract.path_parameters(), 1) | {"user_id": admin.id}
    targets = corpus.targets(client.contract, ids)
    bodies = corpus.bodies(targets, client.contract, corpus.JSON)
    assert len(bodies) >= 15
    for body in bodies:
        valid = body.valid() or dict.fromkeys(body.fields)
        method, url = body.target.method, body.target.url()
        plain = json.dumps(valid).encode()
        for name in valid:
            answer = await send(admin, method, url, twice(valid, name, valid[name]))
            assert refused(answer) == [(name, "duplicate")], body.target.name
        assert refused(await send(admin, method, url, BOM + plain)) == [("body", "json_invalid")]
        assert refused(await send(admin, method, url, b" " + BOM + plain))
        assert (await send(admin, method, url, plain.decode().encode("utf-16"))).status_code == 400


@on_sqlite
@pytest.mark.parametrize(
    ("content", "fields"),
    [
        (twice(POST, "title", ""), ["title"]),
        (twice(POST, "title", None), ["title"]),
        (twice(POST, "tags", ["two"]), ["tags"]),
        (b'{"title": "a", "content": "b", "t\\u0069tle": "c"}', ["title"]),
        (b'{"title": "a", "content": "b", "content": "b", "title": "a"}', ["title", "content"]),
        (b'{"title": {"x": 1, "y": {"deep": 1, "deep": 2}}, "content": "b"}', ["deep"]),
        (b'{"title": "a", "content": "b", "tags": [{"n": 1, "n": 1}]}', ["n"]),
        (b'[{"a": 1, "a": 1}]', ["a"]),
        (b'{"": 1, "": 2}', [""]),
        (b'{"\\ud800": 1, "\\ud800": 2}', ["?"]),
    ],
)
async def test_a_member_that_comes_twice_is_refused_at_any_depth(
    client: Client, content: bytes, fields: list[str]
) -> None:
    """A37: whichever of the two would have been checked, or taken."""
    ana = await client.user()
    for headers in ({}, {"Idempotency-Key": "k1"}, {"Content-Type": "application/ld+json"}):
        answer = await send(ana, "POST", "/posts", content, **headers)
        assert refused(answer) == [(field, "duplicate") for field in fields]
        assert answer.json()["errors"][0]["message"] == i18n.text("en", "validation", "duplicate")
    assert (await ana.get(f"/users/{ana.id}/posts")).json()["total"] == 0


@on_sqlite
async def test_many_members_that_come_twice_make_a_short_answer(client: Client) -> None:
    ana = await client.user()
    long = "k" * 500
    names = [*(f"{long}{number}" for number in range(60)), *map(str, range(60))]
    content = ("{" + ",".join(f'"{name}": 1' for name in names * 2) + "}").encode()
    answer = await send(ana, "POST", "/posts", content)
    assert len(refused(answer)) == 50
    assert len(answer.content) < 20_000


@on_sqlite
async def test_what_looks_like_a_mark_or_a_repetition_but_is_none_is_taken(client: Client) -> None:
    ana = await client.user()
    body = {"title": "a\ufeffb", "content": '{"x": 1, "x": 2}', "tags": ["title", "content"]}
    response = await send(ana, "POST", "/posts", json.dumps(body, ensure_ascii=False).encode())
    assert response.status_code == 201, response.text
    assert (response.json()["title"], response.json()["tags"]) == (
        body["title"],
        ["content", "title"],
    )
    odd = b'\n\t {"title": "a", "Title": 1, "content": ""} '
    assert refused(await send(ana, "POST", "/posts", odd)) == [("Title", "extra_forbidden")]


@on_sqlite
async def test_where_a_body_breaks_off_is_no_name_of_a_field(client: Client) -> None:
    for content in (b"{", b'{"email": }', b'{"email": "a', b"\xef\xbb\xbf{}", b"{} {}"):
        answer = await send(client, "POST", "/auth/register", content)
        assert refused(answer) == [("body", "json_invalid")], content


@on_sqlite
async def test_a_repeated_request_with_a_member_twice_is_not_the_same(client: Client) -> None:
    """Nor is one with a mark: the answer is kept for what was asked."""
    ana = await client.user()
    plain = json.dumps(POST).encode()
    response = await send(ana, "POST", "/posts", plain, **{"Idempotency-Key": "once"})
    assert response.status_code == 201
    for content in (BOM + plain, twice(POST, "title", POST["title"])):
        for kind in ("application/json", "text/plain"):
            headers = {"Idempotency-Key": "once", "Content-Type": kind}
            again = await send(ana, "POST", "/posts", content, **headers)
            assert again.status_code == 422, (content, kind)
    assert (await ana.get(f"/users/{ana.id}/posts")).json()["total"] <= 1


async def log_in(person: Client, *fields: tuple[str, str], multipart: bool) -> httpx2.Response:
    if not multipart:
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        return await person.request(
            "POST", "/auth/login", content=urlencode(fields), headers=headers
        )
    parts = "".join(
        f'--x\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in fields
    )
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    return await person.request(
        "POST", "/auth/login", content=f"{parts}--x--\r\n".encode(), headers=headers
    )


@on_sqlite
@pytest.mark.parametrize("multipart", [False, True])
async def test_a_field_of_a_form_comes_once(client: Client, multipart: bool) -> None:
    """RFC 6749 §3.2; what we do not know is passed over, however often it comes."""
    ana: Person = await client.user()
    good = [("username", ana.email), ("password", PASSWORD), ("grant_type", "password")]
    for field in good:
        answer = await log_in(client, *good, field, multipart=multipart)
        assert refused(answer) == [(field[0], "duplicate")]
        answer = await log_in(client, (field[0], ""), *good, multipart=multipart)
        assert refused(answer) == [(field[0], "duplicate")]
    unknown = [("resource", "a"), ("resource", "b")]
    assert (await log_in(client, *good, *unknown, multipart=multipart)).status_code == 200


def test_a_route_of_ones_own_takes_a_parameter_once_unless_it_is_a_list() -> None:
    app = FastAPI()
    problems.register(app)
    router = APIRouter(route_class=StrictRoute)

    @router.get("/things")
    async def things(name: str, kind: Annotated[list[str], Query()]) -> Any:
        return {"name": name, "kind": kind}

    app.include_router(router)
    client = TestClient(app)
    answer = client.get("/things?name=a&kind=b&kind=c")
    assert answer.json() == {"name": "a", "kind": ["b", "c"]}
    for query, error in (
        ("name=a&name=b&kind=c&other=1", ("name", "duplicate")),
        ("name=a&kind=c&other=1&other=2", ("other", "extra_forbidden")),
    ):
        answer = client.get(f"/things?{query}")
        assert answer.status_code == 422
        assert [(each["field"], each["type"]) for each in answer.json()["errors"]] == [error]
