"""Headers, hosts and bodies of every response: what they show, and what they never do."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.conftest import SECRET
from tests.support.apps import client_of
from tests.support.client import API, PASSWORD, Client
from tests.support.problems import problem
from tests.support.process import environment, serving

# None of this depends on the database; one of them will do.
pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True, scope="session")
ORIGIN = "https://app.example.com"
LIMIT = 2_048
SECURE = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "x-frame-options": "DENY",
    "cross-origin-opener-policy": "same-origin",
}


@pytest.fixture
async def browser(client: Client, tmp_path: Path) -> AsyncIterator[Client]:
    """A client of an app that one origin may use from a browser, with a small body limit."""
    settings = {"cors_origins": [ORIGIN], "cors_headers": ["X-Own"], "max_body_bytes": LIMIT}
    async with client_of(client, tmp_path, **settings) as browser:
        yield browser


async def fail(*_: object, **__: object) -> None:
    raise LookupError


# --- Headers of every response -----------------------------------------------------------------


async def responses(browser: Client) -> list[httpx2.Response]:
    """One response of every kind: each status, pages, files, preflights."""
    ana = await browser.user()
    post = f"/posts/{(await ana.write())['id']}"
    found = [
        await ana.get("/users/me"),
        await ana.post("/posts", {"title": "x", "content": ""}),
        await ana.post("/posts", {}),
        await ana.get("/posts?cursor=x"),
        await ana.get("/users"),
        await ana.get("/posts/999"),
        await ana.patch(post, {}, headers={"If-Match": '"9"'}),
        await ana.patch(post, {"title": "x" * LIMIT}),
        await ana.delete(post),
        await browser.get("/users/me"),
        await browser.put("/posts"),
        await browser.request("POST", "/auth/login", data={"username": "x", "password": "x"}),
    ]
    paths = ("/nothing", "/docs", "/errors", "/openapi.json", "/static/page.css", "/health")
    found += [await browser.http.get(path) for path in paths]
    for origin in (ORIGIN, "https://evil.example.com"):
        headers = {"Origin": origin, "Access-Control-Request-Method": "GET"}
        found += [await browser.http.request("OPTIONS", f"{API}/posts", headers=headers)]
    return found


async def test_every_kind_of_response_has_the_security_headers(
    browser: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A51, A52: whatever answers, the app, the framework or a middleware."""
    found = await responses(browser)
    monkeypatch.setattr("app.crud.post_listing.list_posts", fail)
    found.append(await browser.get("/posts"))
    statuses = {200, 201, 204, 400, 401, 403, 404, 405, 412, 413, 422, 500}
    assert {response.status_code for response in found} == statuses
    for response in found:
        headers = response.headers
        assert SECURE.items() <= dict(headers).items(), response.request.url
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert "default-src 'none'" in headers["content-security-policy"]
        assert headers["x-request-id"]
        assert not {"server", "x-powered-by", "strict-transport-security"} & set(headers)
        is_file = response.request.url.path.startswith("/static")
        assert ("no-store" in headers["cache-control"]) != is_file


async def test_over_tls_browsers_are_told_to_stay_there(client: Client) -> None:
    """A52"""
    for path in ("/health", "/nothing", "/errors"):
        response = await client.http.get(f"https://testserver{path}")
        assert int(re.findall(r"max-age=(\d+)", _hsts(response))[0]) >= 31_536_000


def _hsts(response: httpx2.Response) -> str:
    return str(response.headers["strict-transport-security"])


async def test_the_server_does_not_name_itself(client: Client, tmp_path: Path) -> None:
    """A52: neither in what the app answers nor in what uvicorn does for it."""
    url = client.app.state.settings.database_url
    env = environment(database_url=url, data_dir=tmp_path, secret_key=SECRET, port=0)
    async with serving(tmp_path, env) as server, httpx2.AsyncClient(base_url=server.url) as http:
        for path in ("/health", "/nothing", "/docs"):
            assert "server" not in (await http.get(path)).headers
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"nonsense\r\n\r\n")
        refused = await asyncio.wait_for(reader.read(), timeout=10)
        writer.close()
        await writer.wait_closed()
    assert refused.startswith(b"HTTP/1.1 400")
    assert b"\r\nserver:" not in refused.lower()


# --- CORS ------------------------------------------------------------------------------------

ACCESS = "access-control-allow-origin"
FOREIGN = ["https://evil.example.com", "null", "http://app.example.com", "*", ""]
FOREIGN += [f"{ORIGIN}.evil.com", f"{ORIGIN}:8443", ORIGIN.upper(), f"{ORIGIN}, https://x.com"]


async def test_only_a_listed_origin_may_read_responses(browser: Client) -> None:
    """A50: also errors, and with cookies."""
    for path in ("/health", "/users/me", "/posts", "/nothing"):
        response = await browser.get(path, headers={"Origin": ORIGIN})
        assert response.headers[ACCESS] == ORIGIN
        assert "Origin" in response.headers["vary"]
        assert response.headers["access-control-allow-credentials"] == "true"
        exposed = set(response.headers["access-control-expose-headers"].split(", "))
        assert {"ETag", "Link", "Location", "Retry-After", "X-Request-ID"} <= exposed
        assert "WWW-Authenticate" in exposed


async def test_no_other_origin_may_read_anything(browser: Client) -> None:
    """A50: never `*`, never a reflection, never `null`."""
    for origin in FOREIGN:
        headers = {"Origin": origin}
        for path in ("/health", "/users/me", "/nothing"):
            assert ACCESS not in (await browser.get(path, headers=headers)).headers
        headers["Access-Control-Request-Method"] = "POST"
        preflight = await browser.http.request("OPTIONS", f"{API}/posts", headers=headers)
        assert ACCESS not in preflight.headers
        detail = problem(preflight, 400, "cors_not_allowed")["detail"]
        assert detail.endswith(f"Origin: {origin}.")


async def test_a_preflight_allows_our_methods_and_headers_and_no_others(browser: Client) -> None:
    """A50"""

    async def ask(method: str, header: str) -> httpx2.Response:
        headers = {"Origin": ORIGIN, "Access-Control-Request-Method": method}
        headers["Access-Control-Request-Headers"] = header
        return await browser.http.request("OPTIONS", f"{API}/posts", headers=headers)

    for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"):
        for header in ("authorization", "content-type, if-match", "if-none-match, x-request-id"):
            response = await ask(method, header)
            assert response.status_code == 200
            assert response.headers[ACCESS] == ORIGIN
            assert response.headers["access-control-allow-credentials"] == "true"
    for name in ("traceparent", "Baggage", "x-requested-with", "accept-language", "x-own"):
        assert (await ask("GET", f"authorization, {name}")).status_code == 200
    for method, header, named in (
        ("TRACE", "authorization", "Access-Control-Request-Method: TRACE"),
        ("GET", "authorization, x-evil", "Access-Control-Request-Headers: x-evil"),
    ):
        refused = await ask(method, header)
        body = problem(refused, 400, "cors_not_allowed")
        assert body["detail"] == (
            f"Scripts from other origins are not allowed to send this request: {named}."
        )
        assert refused.headers[ACCESS] == ORIGIN
    headers = {"Origin": ORIGIN, "Access-Control-Request-Method": "GET"}
    headers["Access-Control-Request-Private-Network"] = "true"
    network = await browser.http.request("OPTIONS", f"{API}/posts", headers=headers)
    assert "Private-Network" in problem(network, 400, "cors_not_allowed")["detail"]
    headers.pop("Origin")
    assert (await browser.http.request("OPTIONS", f"{API}/posts")).status_code == 405
    alone = await browser.http.request("OPTIONS", f"{API}/posts", headers=headers)
    assert alone.status_code == 405


async def test_without_listed_origins_nobody_may_read_anything(client: Client) -> None:
    """A50: the default."""
    for origin in (ORIGIN, "null", "http://testserver"):
        response = await client.get("/posts", headers={"Origin": origin})
        assert not [name for name in response.headers if name.startswith("access-control")]


# --- Hosts -----------------------------------------------------------------------------------

OWN = ["api.example.com", "API.Example.com", "api.example.com:8443", "api.example.com:"]
OWN += ["a.example.org", "a.b.example.org:80", "[::1]", "[::1]:8000"]
UNKNOWN = ["evil.com", "", "example.org", "api.example.com.evil.com", "evil-api.example.com"]
UNKNOWN += ["api.example.com:80:80", "api.example.com:x", "api.example.com@evil.com", "a"]
UNKNOWN += ["evil.com/.example.org/", "evil.com#", "xexample.org", "[::2]", "api.example.com."]


@pytest.fixture
async def guarded(client: Client, tmp_path: Path) -> AsyncIterator[Client]:
    """A client of an app that answers for some hosts only."""
    hosts = ["api.example.com", "*.example.org", "[::1]"]
    async with client_of(client, tmp_path, trusted_hosts=hosts) as guarded:
        yield guarded


async def test_only_our_own_hosts_are_answered_for(guarded: Client) -> None:
    """A52: by name, by wildcard, with and without a port."""
    for host in OWN:
        response = await guarded.get("/health", headers={"Host": host})
        assert response.status_code == 200, host
    for host in UNKNOWN:
        for path in ("/health", "/users/me", "/docs", "/nothing"):
            response = await guarded.http.get(path, headers={"Host": host})
            assert response.status_code == 400, host
            assert response.json()["code"] == "untrusted_host"
            assert not host or host == "a" or host not in response.text
    twice = await guarded.http.get("/health", headers=[("Host", OWN[0]), ("Host", OWN[0])])
    assert twice.json()["code"] == "untrusted_host", "which of them would it be?"


HOSTILE = {"Host": "c4n4ry.evil.com", "X-Forwarded-Host": "c4n4ry.evil.com"}
HOSTILE |= {"Forwarded": "host=c4n4ry.evil.com", "X-Original-URL": "/c4n4ry"}


async def test_a_hostile_host_is_nowhere_in_what_we_answer(client: Client) -> None:
    """A52: `TRUSTED_HOSTS=*` is the default, so nothing may be built from the header."""
    admin = await client.admin()
    body = {"email": "ana@example.com", "name": "Ana", "password": PASSWORD}
    registered = await client.post("/auth/register", body, headers=HOSTILE)
    assert registered.headers["location"] == f"{API}/users/{registered.json()['id']}"
    created = await admin.post("/posts", {"title": "x", "content": ""}, headers=HOSTILE)
    assert created.headers["location"] == f"{API}/posts/{created.json()['id']}"
    assert (await admin.get(created.headers["location"])).status_code == 200
    paths = ["/users?page_size=1&q=a", "/outbox", "/posts/", "/posts?sort=x", "/health", "/x"]
    found = [await admin.get(path, headers=HOSTILE) for path in paths]
    paths = ["/docs", "/redoc", "/openapi.json", "/errors", "/static", "/docs/"]
    found += [await client.http.get(path, headers=HOSTILE) for path in paths]
    for response in [registered, created, *found]:
        assert "c4n4ry" not in response.text + str(response.headers)
        assert not response.is_redirect


async def test_links_are_relative_and_keep_the_query(client: Client) -> None:
    """A52: they lead to the next page wherever the API stands."""
    admin = await client.admin()
    for name in ("Ana", "Anabel", "Anastasia"):
        await client.register(name)
    response = await admin.get("/users?page_size=1&page=2&q=ana&sort=name", headers=HOSTILE)
    found = re.findall(r'<([^>]*)>; rel="(\w+)"', response.headers["link"])
    links = {rel: url for url, rel in found}
    assert set(links) == {"first", "prev", "next", "last"}
    assert all(url.startswith(f"{API}/users?") for url in links.values())
    assert (await admin.get(links["next"])).json()["items"][0]["name"] == "Anastasia"


# --- Bodies ----------------------------------------------------------------------------------


@dataclass
class Endless:
    """A body without end, which counts what was taken of it."""

    taken: int = 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            self.taken += 100
            yield b" " * 100


def of_size(size: int) -> bytes:
    head, tail = b'{"title": "x", "content": "', b'"}'
    return head + b"y" * (size - len(head) - len(tail)) + tail


async def test_a_body_may_be_as_large_as_the_limit_and_not_a_byte_more(browser: Client) -> None:
    """A40: with a Content-Length and without."""

    async def parts(content: bytes) -> AsyncIterator[bytes]:
        yield content[:1_000]
        yield content[1_000:]

    ana = await browser.user()
    headers = {"Content-Type": "application/json"}
    for size, status in ((LIMIT, 201), (LIMIT + 1, 413)):
        whole: list[Any] = [of_size(size), parts(of_size(size))]
        for content in whole:
            response = await ana.post("/posts", content=content, headers=headers)
            assert response.status_code == status
    assert response.json()["code"] == "payload_too_large"


async def test_a_bad_or_large_content_length_is_refused_unread(browser: Client) -> None:
    """A40"""
    for length in (str(LIMIT + 1), "9" * 30, "9" * 5_000, "-1", "x", "1_0", "²", " "):
        endless = Endless()
        headers = [(b"Content-Length", length.encode("latin-1"))]
        response = await browser.http.request(
            "POST", f"{API}/auth/register", content=endless, headers=headers
        )
        assert response.status_code == 413, length
        assert response.json()["code"] == "payload_too_large"
        assert endless.taken == 0


async def test_an_endless_body_is_read_no_further_than_the_limit(browser: Client) -> None:
    """A40: chunked, or with a Content-Length that lies; also where it is a form."""
    for path, media_type in (("register", "application/json"), ("login", None)):
        for declared in ({}, {"Content-Length": "10"}):
            endless = Endless()
            kind = media_type or "application/x-www-form-urlencoded"
            headers = {"Content-Type": kind, **declared}
            response = await browser.post(f"/auth/{path}", content=endless, headers=headers)
            assert response.status_code == 413
            assert endless.taken <= LIMIT + 200
