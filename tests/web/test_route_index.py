"""The route index leads every path and method to the same route as the router."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlencode

import httpx2
import pytest
from fastapi import FastAPI, Query
from fastapi.testclient import TestClient
from pydantic import ValidationError
from starlette.requests import Request

from app.schemas.pages import PageQuery
from app.schemas.posts import PostQuery
from app.schemas.users import UserQuery
from app.web import pagination, problems
from app.web.pagination import QueryParams
from app.web.route_index import RouteIndex
from tests.conftest import make_settings
from tests.support.apps import app_of
from tests.support.client import API, Client, Person
from tests.support.people import new_user
from tests.support.refusals import refused

on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
IDS = (
    "{}",
    "1",
    "01",
    "0",
    "-1",
    "1.0",
    "x",
    "%31",
    "%7B%7D",
    "9" * 30,
    "\u0661",
    "me",
    "",
    "1/",
    "1%0A",
)
METHODS = ("GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE", "TRACE", "FOO")


# --- Routes --------------------------------------------------------------------------------------


@pytest.fixture
async def longer_way(
    client: Client, database_url: str, tmp_path: Path
) -> AsyncIterator[tuple[FastAPI, FastAPI]]:
    """The app, and one on the same database that tries one route after the other."""
    async with app_of(make_settings(database_url, tmp_path)) as without:
        assert isinstance(without.router.routes.pop(0), RouteIndex)
        yield client.app, without


async def answers(
    apps: tuple[FastAPI, FastAPI], requests: list[tuple[str, str]], root_path: str, token: str = ""
) -> list[list[tuple[Any, ...]]]:
    """What each app answers, without what is new in every answer."""
    found = []
    for app in apps:
        transport = httpx2.ASGITransport(app=app, root_path=root_path)
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        async with httpx2.AsyncClient(transport=transport, base_url="http://testserver") as http:
            found.append(
                [
                    shown(await http.request(method, path, headers=headers))
                    for method, path in requests
                ]
            )
    return found


def shown(response: httpx2.Response) -> tuple[Any, ...]:
    is_json = response.headers.get("content-type", "").endswith("json") and response.content
    body: Any = response.json() if is_json else response.content
    if isinstance(body, dict):
        body.pop("request_id", None)
    kept = {name: value for name, value in response.headers.items() if name != "x-request-id"}
    return response.request.method, response.url.raw_path, response.status_code, kept, body


def paths(client: Client, *ids: str) -> list[str]:
    """Every path of the API with each of these in the place of its parameters, and others."""
    found = {path for _, path, _ in client.contract.operations.values()}
    names = client.contract.path_parameters()
    filled = {path.format(**dict.fromkeys(names, id_)) for path in found for id_ in ids}
    others = ("/", "/health/", "/openapi.json", "/nowhere", f"{API}/posts/1/nowhere", f"{API}/1/2")
    return [*sorted(filled), *others, "/static/page.css", "/errors", "/errors/not_found"]


@on_sqlite
@pytest.mark.parametrize("root_path", ["", "/prefix"])
async def test_every_path_and_method_leads_where_it_led(
    client: Client, longer_way: tuple[FastAPI, FastAPI], root_path: str
) -> None:
    """Known, unknown, wrong method (with `Allow`), ids that are none, behind a prefix."""
    known = paths(client, "1", "x")
    requests = [(method, root_path + path) for path in known for method in METHODS]
    direct, longer = await answers(longer_way, requests, root_path)
    assert direct == longer
    seen = {status for _, _, status, *_ in direct}
    assert seen >= {200, 401, 404, 405, 422}
    assert all("allow" in kept for _, _, status, kept, _ in direct if status == 405)


@on_sqlite
@pytest.mark.parametrize("root_path", ["", "/prefix"])
async def test_every_id_names_what_it_named(
    client: Client, longer_way: tuple[FastAPI, FastAPI], root_path: str
) -> None:
    admin = await new_user(client, ["admin"])
    post = await admin.write()
    ids = [*IDS, str(admin.id), str(post["id"])]
    requests = [
        (method, path) for path in paths(client, *ids) for method in ("GET", "HEAD", "OPTIONS")
    ]
    direct, longer = await answers(longer_way, requests, root_path, admin.token)
    assert direct == longer
    assert {status for _, _, status, *_ in direct} >= {200, 404, 405, 422}


@on_sqlite
async def test_known_routes_take_the_shortcut(client: Client) -> None:
    """Else all of the above would hold for a shortcut that knows nothing."""
    shortcut = client.app.router.routes[0]
    assert isinstance(shortcut, RouteIndex)
    ids = {name: 11 * (at + 1) for at, name in enumerate(client.contract.path_parameters())}
    for method, path, _ in client.contract.operations.values():
        filled = path.format(**ids)
        scope = {"type": "http", "method": method.upper(), "path": filled, "headers": []}
        match, found = shortcut.matches(scope)
        assert match.name == "FULL", (method, path)
        assert found["route"].path == path
        for other in (
            {"root_path": "/prefix"},
            {"type": "websocket"},
            {"method": "TRACE"},
            {"path": f"{filled}/"},
        ):
            assert shortcut.matches(scope | other)[0].name == "NONE"


# --- Query strings -------------------------------------------------------------------------------

QUERIES = (
    "",
    "page=2&page_size=3&sort=-title",
    "q=&tag=",
    "q=a%20b+c",
    "q=%FF%FE",
    "q=%00",
    "q=%ED%A0%80",
    "q=" + "x" * 201,
    "q=" + "%C3%B1" * 200,
    "page=",
    "page=0&page_size=101&sort=id&cursor=%00&author_id=0",
    "page=1.0&page_size=+1",
    "page=99999999999999999999",
    "author_id=",
    "author_id=-7",
    "status=published&deleted=true",
    "status=PUBLISHED&deleted=maybe",
    "created_from=2026-01-01T00:00:00Z&created_to=yesterday",
    "created_from=2026-01-01T00:00:00",
    "unknown=1&page=1",
    "unknown",
    "&&&page=1&",
    "page=1;page_size=2",
    "&".join(f"k{number}=1" for number in range(200)),
    urlencode({"cursor": "x" * 2_001}),
)


@pytest.fixture(scope="module")
def plain() -> FastAPI:
    """FastAPI's own way of taking a query string, and our way of refusing one."""
    app = FastAPI()
    problems.register(app)

    @app.get("/posts")
    async def posts(query: Annotated[PostQuery, Query()]) -> Any:
        return query.model_dump(mode="json")

    return app


async def query_from(text: str) -> PostQuery:
    return await _POSTS(Request({"type": "http", "query_string": text.encode("latin-1")}))


_POSTS = QueryParams(PostQuery)


@on_sqlite
@pytest.mark.parametrize("text", QUERIES, ids=lambda text: text[:30])
async def test_a_query_string_means_what_it_meant(
    client: Client, plain: FastAPI, text: str
) -> None:
    """The same values, and the same errors with the same names, however often it is sent."""
    before = TestClient(plain).get(f"/posts?{text}")
    for _ in range(2):
        answer = await client.http.get(f"{API}/posts?{text}")
        if before.status_code == 200:
            assert answer.status_code == 200, answer.text
            assert (await query_from(text)).model_dump(mode="json") == before.json()
        else:
            assert answer.status_code == before.status_code == 422
            assert answer.json()["errors"] == before.json()["errors"]


@on_sqlite
@pytest.mark.parametrize("values", [("1", "2"), ("x", "3"), ("3", "x")])
async def test_a_name_that_comes_twice_is_refused(client: Client, values: tuple[str, str]) -> None:
    """Whichever of the two were taken, the other would be lost in silence."""
    query = urlencode([("page_size", value) for value in values])
    for _ in range(2):
        answer = await client.get(f"/posts?{query}")
        assert answer.status_code == 422
        assert refused(answer) == [("page_size", "duplicate")]


@on_sqlite
async def test_a_long_query_string_is_as_good(client: Client) -> None:
    """Parsed each time, as it would fill the memory."""
    ana = await new_user(client)
    title = "ñ" * 200
    await ana.write(title)
    await ana.write("Other")
    for _ in range(2):
        answer = await client.get("/posts", params={"q": title})
        assert [post["title"] for post in answer.json()["items"]] == [title]


def test_what_is_read_from_a_short_query_string_is_kept_from_a_long_one_not() -> None:
    """Else a few thousand requests would fill the memory: repeated names make any length valid."""
    read: list[bytes] = []
    caching = pagination._caching(read.append)
    for raw in (b"page=2", b"page=2", b"page=2&" * 50, b"page=2&" * 50):
        caching(raw)
    assert read == [b"page=2", b"page=2&" * 50, b"page=2&" * 50]


async def test_the_same_query_string_is_the_same_query() -> None:
    first, again, other = [await query_from(text) for text in ("page=2", "page=2", "page=3")]
    assert first is again
    assert (first.page, other.page) == (2, 3)


@pytest.mark.parametrize("model", [PostQuery, UserQuery])
async def test_a_query_that_may_come_again_cannot_be_changed(model: type[PageQuery]) -> None:
    query = model.model_validate({"page": "2"})
    for name in model.model_fields:
        with pytest.raises(ValidationError, match="frozen"):
            setattr(query, name, 7)


@on_sqlite
async def test_whoever_may_not_ask_is_not_told_what_is_wrong_with_the_question(
    client: Client,
) -> None:
    ana: Person = await new_user(client)
    for _ in range(2):
        assert (await client.get("/users?page=0")).status_code == 401
        assert (await ana.get("/users?page=0")).status_code == 403
