"""HEAD, `ETag` and `If-None-Match` of every read; `tests/web/test_etags.py` has the changes."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message

from app.core.permissions import Permission
from app.web.etags import conditional
from tests.conftest import SECRET
from tests.contract.resources import SCENARIOS
from tests.support.client import API, Client, Person
from tests.support.document import documented
from tests.support.matrix import Scenario, World, operation_of
from tests.support.people import new_user, user_with
from tests.support.process import environment, serving

OTHER = '"0123456789abcdef0123456789abcdef"'
READS = [row for row in SCENARIOS if documented().operations[operation_of(row)][0] == "get"]
TAGGED = [row for row in READS if row not in {"health", "ready"}]
UNSENT = {"content-length", "content-type", "link", "x-total-count"}
on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


async def read(
    who: Client, row: str, scenario: Scenario, method: str = "GET", **headers: str
) -> httpx2.Response:
    """Call a read of the matrix, with these headers."""
    _, template, _ = who.contract.operations[operation_of(row)]
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    return await who.request(
        method, template.format(**scenario.ids), headers=given, **scenario.options
    )


def lasting(response: httpx2.Response) -> dict[str, str]:
    """The headers of a response but those that are new in every one."""
    return {name: value for name, value in response.headers.items() if name != "x-request-id"}


async def opened(client: Client, row: str) -> tuple[Person, Scenario]:
    """A user who may call a read, and its scenario; the own sessions are those of the user."""
    admin = await new_user(client, ["admin"])
    return admin, await SCENARIOS[row](World(admin, {}))


# --- Every read ------------------------------------------------------------------------------


def test_the_reads_are_all_there() -> None:
    """A new GET is held to all of this by itself."""
    read = {name for name, (method, *_) in documented().operations.items() if method == "get"}
    assert {operation_of(row) for row in READS} == read
    assert {"list_posts", "get_post", "get_me", "list_permissions", "list_keys"} <= read


@pytest.mark.long
@pytest.mark.parametrize("row", READS)
async def test_head_is_get_without_the_body(client: Client, row: str) -> None:
    reader, scenario = await opened(client, row)
    got = await read(reader, row, scenario)
    head = await read(reader, row, scenario, "HEAD")
    assert got.status_code == head.status_code == 200
    assert lasting(head) == lasting(got)
    assert int(head.headers["content-length"]) == len(got.content) > 0
    assert head.content == b""


@pytest.mark.long
@pytest.mark.parametrize("row", TAGGED)
async def test_what_the_caller_has_already_is_not_sent_again(client: Client, row: str) -> None:
    reader, scenario = await opened(client, row)
    got = await read(reader, row, scenario)
    tag = got.headers["etag"]
    digest = hashlib.sha256(got.content).hexdigest()[:32]
    assert tag.strip('"').rpartition("-")[2] == digest, "strong: computed from the very bytes"
    for given in (tag, f"W/{tag}", "*", f"{OTHER}, {tag}", f"{OTHER},W/{tag} ", f' W/"", {tag}'):
        for method in ("GET", "HEAD"):
            same = await read(reader, row, scenario, method, if_none_match=given)
            assert same.status_code == 304, given
            assert same.content == b""
            assert lasting(same) == {
                name: value for name, value in lasting(got).items() if name not in UNSENT
            }
    for given in (OTHER, f"W/{OTHER}", "", ",", tag.strip('"'), tag[:-1], "**", "W/*", f"w/{tag}"):
        other = await read(reader, row, scenario, if_none_match=given)
        assert (other.status_code, other.content) == (200, got.content), given
        assert lasting(other) == lasting(got)


def security(row: str) -> list[dict[str, list[str]]]:
    """What an operation asks of its caller."""
    found: list[dict[str, list[str]]] = documented().operations[operation_of(row)][2]["security"]
    return found


GATED = [row for row in TAGGED if security(row) and {} not in security(row)]


@pytest.mark.long
@pytest.mark.parametrize("row", GATED)
async def test_a_tag_opens_nothing(client: Client, row: str) -> None:
    """A18: who may not read is refused as ever, also with the tag of what is there."""
    reader, scenario = await opened(client, row)
    tag = (await read(reader, row, scenario)).headers["etag"]
    expected: list[tuple[Client, int]] = [(client, 401)]
    if any(scopes for each in security(row) for scopes in each.values()):
        expected.append((await user_with(client), 403))
    for who, status in expected:
        for given in ("*", tag):
            for method in ("GET", "HEAD"):
                refused = await read(who, row, scenario, method, if_none_match=given)
                assert refused.status_code == status
                assert refused.headers["www-authenticate"].startswith("Bearer")
                assert "etag" not in refused.headers


# --- What changes ----------------------------------------------------------------------------


async def changed(who: Client, path: str, tag: str) -> str:
    """The tag after a change: another one, with the whole answer."""
    response = await who.get(path, headers={"If-None-Match": tag})
    assert response.status_code == 200, f"{path} has changed"
    assert response.content
    new: str = response.headers["etag"]
    assert new != tag
    assert (await who.get(path, headers={"If-None-Match": new})).status_code == 304
    return new


async def test_after_a_change_the_answer_and_the_tag_are_others(client: Client) -> None:
    admin = await new_user(client, ["admin"])
    ana = await new_user(client)
    post = await ana.write()
    role = (await admin.post("/roles", {"name": "seen"})).json()
    paths = [f"/posts/{post['id']}", "/posts", f"/users/{ana.id}/posts", "/posts?q=title"]
    of_users = [f"/users/{ana.id}", "/users", f"/users/{ana.id}/roles", f"/roles/{role['id']}"]
    tags = {path: (await admin.get(path)).headers["etag"] for path in (*paths, *of_users)}
    assert (await ana.patch(f"/posts/{post['id']}", {"content": "New."})).status_code == 200
    for path in paths:
        tags[path] = await changed(admin, path, tags[path])
    assert (await admin.put(f"/users/{ana.id}/roles/{role['id']}")).status_code == 204
    for path in of_users:
        tags[path] = await changed(admin, path, tags[path])
    assert (await ana.delete(f"/posts/{post['id']}")).status_code == 204
    gone = await admin.get(paths[0], headers={"If-None-Match": "*"})
    assert gone.status_code == 404, "errors stay errors"
    for path in paths[1:]:
        await changed(admin, path, tags[path])


async def test_the_name_of_the_author_is_a_part_of_what_a_post_shows(client: Client) -> None:
    """It changes without the version: the same edit is still in time, and no 304 hides it."""
    ana = await client.user()
    post = await ana.write()
    path = f"/posts/{post['id']}"
    tag = (await client.get(path)).headers["etag"]
    assert (await ana.patch("/users/me", {"name": "Ana García"})).status_code == 200
    after = await client.get(path, headers={"If-None-Match": tag})
    assert (after.status_code, after.json()["version"]) == (200, post["version"])
    assert after.json()["author"]["name"] == "Ana García"
    assert after.headers["etag"] != tag
    bare = f'"{post["version"]}"'
    assert (await client.get(path, headers={"If-None-Match": bare})).status_code == 200
    edited = await ana.patch(path, {"title": "In time"}, headers={"If-Match": tag})
    assert edited.status_code == 200, "the version is as it was read"
    for stale in (tag, after.headers["etag"], bare, f'"{post["version"] + 1}-{"0" * 31}"'):
        late = await ana.patch(path, {"title": "Late"}, headers={"If-Match": stale})
        assert late.status_code == 412, stale
    read = await client.get(path, headers={"If-None-Match": edited.headers["etag"]})
    assert read.status_code == 304, "what a change answers is what reading it would"


async def test_who_sees_something_else_has_another_tag(client: Client) -> None:
    """A draft is in the author's list alone: its tag does not stand for the public one."""
    ana = await client.user()
    await ana.write(status="draft")
    public, own = await client.get("/posts"), await ana.get("/posts")
    assert public.headers["etag"] != own.headers["etag"]
    own_tag = {"If-None-Match": own.headers["etag"]}
    assert (await client.get("/posts", headers=own_tag)).status_code == 200


# --- What caches may keep --------------------------------------------------------------------


async def test_caches_may_keep_only_what_everybody_sees(client: Client) -> None:
    ana = await client.user()
    post = await ana.write()
    for path in ("/posts", f"/posts/{post['id']}", "/tags", f"/users/{ana.id}/posts"):
        for method in ("GET", "HEAD"):
            public = await client.request(method, path)
            assert public.headers["cache-control"] == "no-cache", "ask each time"
            assert public.headers["vary"] == "Authorization"
            for credentials in (ana.headers["Authorization"], "Basic eDp4"):
                own = await client.request(method, path, headers={"Authorization": credentials})
                assert own.status_code == 200
                assert own.headers["cache-control"] == "no-store"
    for path in ("/users/me", "/auth/sessions"):
        assert (await ana.get(path)).headers["cache-control"] == "no-store"
    for path in ("/posts/999999999", "/posts?page=0", "/users/me"):
        refused = await client.get(path, headers={"If-None-Match": "*"})
        assert refused.status_code in {401, 404, 422}
        assert refused.headers["cache-control"] == "no-store"
        assert "etag" not in refused.headers


# --- HEAD elsewhere --------------------------------------------------------------------------


@on_sqlite
async def test_head_is_served_wherever_get_is(client: Client) -> None:
    """Also pages and files; and refused in the same words, without them."""
    paths = ["/health", "/docs", "/errors", "/errors/not_found", "/openapi.json"]
    paths += ["/static/page.css", "/nothing", "/errors/nothing", f"{API}/posts/999999999"]
    paths += [f"{API}/users/me", f"{API}/posts?page=0", f"{API}/auth/login", "/account/nothing"]
    statuses = set()
    for path in paths:
        got, head = await client.http.get(path), await client.http.head(path)
        statuses.add(got.status_code)
        # The request id stands in the body of an error, and is as long in each.
        assert (head.status_code, lasting(head)) == (got.status_code, lasting(got)), path
        assert head.content == b""
        assert int(head.headers["content-length"]) == len(got.content)
    assert statuses == {200, 401, 404, 405, 422}


@on_sqlite
async def test_a_wrong_method_is_told_head_only_where_get_is(client: Client) -> None:
    for method, path, allowed in (
        ("HEAD", "/auth/login", "POST"),
        ("HEAD", "/auth/refresh", "POST"),
        ("GET", "/auth/logout", "POST"),
        ("PUT", "/tags", "GET, HEAD"),
        ("DELETE", "/posts", "GET, HEAD, POST"),
        ("POST", "/posts/1", "DELETE, GET, HEAD, PATCH"),
    ):
        response = await client.request(method, path, headers={"If-None-Match": "*"})
        assert (response.status_code, response.headers["allow"]) == (405, allowed)


@on_sqlite
@pytest.mark.parametrize(
    ("path", "status"), [("/health", 200), (f"{API}/posts", 200), ("/nothing", 404)]
)
async def test_the_application_itself_sends_no_body(app: FastAPI, path: str, status: int) -> None:
    """Servers and clients drop it too: here nobody does."""
    messages: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        messages.append(message)

    scope = {"type": "http", "method": "HEAD", "path": path, "raw_path": path.encode()}
    scope |= {"query_string": b"", "headers": [], "scheme": "http", "root_path": ""}
    scope |= {"http_version": "1.1", "server": ("testserver", 80), "client": ("::1", 1)}
    await app(scope, receive, send)
    start, *bodies = messages
    assert start["status"] == status
    assert int(dict(start["headers"])[b"content-length"]) > 0
    assert [each["body"] for each in bodies] == [b""] * len(bodies) != []
    assert scope["method"] == "HEAD", "the server goes by it"


@on_sqlite
async def test_a_denied_head_is_written_down_as_a_denied_get(client: Client) -> None:
    ana, admin = await new_user(client), await new_user(client, ["admin"])
    assert (await ana.request("HEAD", "/users")).status_code == 403
    events = (await admin.get("/audit-events")).json()["items"]
    assert [each["details"]["operation"] for each in events if each["actor_id"] == ana.id] == [
        f"GET {API}/users"
    ]


@on_sqlite
async def test_the_access_log_says_head_and_which_route(
    client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", "app.request"):
        await client.http.head(f"{API}/posts/1")
    record: Any = caplog.records[-1]
    assert (record.method, record.route) == ("HEAD", f"{API}/posts/{{post_id}}")
    assert record.status == 404


@on_sqlite
async def test_over_a_connection_head_and_304_leave_it_usable(
    client: Client, tmp_path: Any
) -> None:
    """uvicorn frames them: a body too much would be read as the next answer."""
    url = client.app.state.settings.database_url
    env = environment(database_url=url, data_dir=tmp_path, secret_key=SECRET, port=0)
    async with serving(tmp_path, env) as server, httpx2.AsyncClient(base_url=server.url) as http:
        got = await http.get(f"{API}/posts")
        tag = {"If-None-Match": got.headers["etag"]}
        for _ in range(2):
            head = await http.head(f"{API}/posts")
            assert (head.status_code, head.headers["content-length"]) == (
                200,
                str(len(got.content)),
            )
            for method in ("GET", "HEAD"):
                same = await http.request(method, f"{API}/posts", headers=tag)
                assert (same.status_code, same.content) == (304, b"")
                assert not {"content-length", "transfer-encoding"} & set(same.headers)
            assert (await http.head("/nothing")).status_code == 404
            assert json.loads((await http.get("/health")).content) == {"status": "ok"}


# --- The wrapper by itself -------------------------------------------------------------------


async def test_only_a_200_is_compared() -> None:
    created = Response("created", status_code=201)

    async def handle(_: Request) -> Response:
        return created

    request = Request({"type": "http", "headers": [(b"if-none-match", b"*")]})
    assert await conditional(handle)(request) is created
    assert (created.status_code, "etag" in created.headers) == (201, False)


async def test_several_lines_are_one_list(client: Client) -> None:
    path = f"{API}/posts"
    tag = (await client.http.get(path)).headers["etag"]
    for first, second in ((OTHER, tag), (tag, OTHER)):
        headers = [("If-None-Match", first), ("If-None-Match", second)]
        assert (await client.http.get(path, headers=headers)).status_code == 304


async def test_the_tag_of_another_page_is_another_one(client: Client) -> None:
    ana = await user_with(client, Permission.posts_write)
    for number in range(3):
        await ana.write(f"Post {number}")
    pages = [f"/posts?page_size=1&page={number}" for number in (1, 2, 3)]
    tags = [(await client.get(path)).headers["etag"] for path in pages]
    assert len(set(tags)) == 3
