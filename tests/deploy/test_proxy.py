"""The reverse proxy of the deployment: limits, trusted headers, retries."""

from __future__ import annotations

import asyncio
import re
import ssl
import subprocess
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

import httpx2
import pytest

from app.config import Settings
from app.core import i18n
from app.server.serving import KEEP_ALIVE_SECONDS
from tests.support.nginx import FOLDER, OK, Nginx, Upstream, free_port, proxying, upstream

pytestmark = pytest.mark.long

LIMIT = Settings.model_fields["max_body_bytes"].default
PROBLEM = {"type", "title", "status", "detail", "code", "instance", "request_id"}


def conf(name: str) -> str:
    return (FOLDER / name).read_text(encoding="utf-8")


def is_problem(response: httpx2.Response, status: int, code: str) -> None:
    """In the contract's shape, down to the headers."""
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    body = response.json()
    assert set(body) == PROBLEM
    assert (body["status"], body["code"], body["type"]) == (status, code, f"/errors/{code}")
    assert body["request_id"] == response.headers["x-request-id"]
    assert response.headers["cache-control"] == "no-store"
    assert response.headers["x-content-type-options"] == "nosniff"
    assert ("retry-after" in response.headers) == (status == 503)


# --- What the files say ------------------------------------------------------------------------


def test_the_proxy_is_the_first_to_close_an_idle_connection() -> None:
    (seconds,) = re.findall(r"^ {8}keepalive_timeout (\d+)s;", conf("nginx.conf"), re.MULTILINE)
    assert int(seconds) < KEEP_ALIVE_SECONDS - 10


def test_bodies_are_bounded_as_by_the_api() -> None:
    assert f"client_max_body_size {LIMIT};" in conf("nginx.conf")


def test_what_the_proxy_refuses_is_said_in_the_words_of_the_api() -> None:
    said = re.findall(
        r'"(en|es) /\.problem/(\w+)" \'"title": "([^"]*)", "detail": "([^"]*)"\';',
        conf("problems.conf"),
    )
    codes = re.findall(r"location = /\.problem/(\w+)", conf("api.conf"))
    assert Counter(code for _, code, *_ in said) == dict.fromkeys(codes, 2)
    for locale, code, title, detail in said:
        text = i18n.find(locale, "errors", code)
        assert (title, detail) == (text["title"], text["detail"])


# --- Before two servers that note down what reaches them ---------------------------------------


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as found:
        yield found


async def before(
    stack: AsyncExitStack, folder: Path, *servers: Upstream, **options: Any
) -> tuple[Nginx, httpx2.AsyncClient]:
    """A proxy before these, or before nobody; and a client of it."""
    ports = [server.port for server in servers] or [free_port(), free_port()]
    proxy = await stack.enter_async_context(proxying(folder, *ports, **options))
    http = await stack.enter_async_context(httpx2.AsyncClient(base_url=proxy.url, timeout=20))
    return proxy, http


async def two(stack: AsyncExitStack, answer: bytes | None) -> tuple[Upstream, Upstream]:
    """Two servers that do the same."""
    first = await stack.enter_async_context(upstream(lambda _: answer))
    return first, await stack.enter_async_context(upstream(lambda _: answer))


async def test_what_clients_say_of_themselves_does_not_reach_the_api(
    stack: AsyncExitStack, tmp_path: Path
) -> None:
    servers = await two(stack, OK)
    _, http = await before(stack, tmp_path / "nginx", *servers)
    lies = {
        "X-Forwarded-For": "6.6.6.6",
        "X-Forwarded-Proto": "https",
        "Forwarded": "for=6.6.6.6",
        "X-Request-ID": "abcd-1234",
        "Connection": "X-Forwarded-For",
    }
    assert (await http.get("/x?a=%2F", headers=lies)).text == "ok"
    (heard,) = [head.decode().lower() for server in servers for head in server.heard]
    assert heard.startswith("get /x?a=%2f http/1.1\r\n")
    assert "6.6.6.6" not in heard
    assert "\r\nx-forwarded-for: 127.0.0.1\r\n" in heard
    assert "\r\nx-forwarded-proto: http\r\n" in heard
    assert "\r\nx-request-id: abcd-1234\r\n" in heard
    assert "\r\nhost: 127.0.0.1\r\n" in heard
    assert "\r\nconnection" not in heard


async def test_what_is_for_the_inside_stays_inside(stack: AsyncExitStack, tmp_path: Path) -> None:
    servers = await two(stack, OK)
    proxy, http = await before(stack, tmp_path / "nginx", *servers)
    hidden = ("/metrics", "/metrics?x", "/metrics/", "//metrics", "/x/../metrics", "/%6detrics")
    for path in (*hidden, "/health/ready"):
        is_problem(await http.get(f"{proxy.url}{path}"), 404, "not_found")
    is_problem(await http.get("/.problem/bad_request"), 404, "not_found")
    assert servers[0].heard + servers[1].heard == []
    assert (await http.get("/health")).text == "ok"


async def test_large_bodies_are_refused_before_the_api_sees_them(
    stack: AsyncExitStack, tmp_path: Path
) -> None:
    servers = await two(stack, OK)
    _, http = await before(stack, tmp_path / "nginx", *servers)
    refused = await http.post("/x?q", content=b"x" * (LIMIT + 1))
    is_problem(refused, 413, "payload_too_large")
    assert refused.json()["instance"] == "/x"

    async def unannounced() -> AsyncIterator[bytes]:
        for _ in range(LIMIT // 8192 + 2):
            yield b"x" * 8192

    spanish = {"Accept-Language": "es-MX, en;q=0.5"}
    refused = await http.post("/x", content=unannounced(), headers=spanish)
    is_problem(refused, 413, "payload_too_large")
    assert refused.json()["title"] == "Cuerpo demasiado grande"
    assert servers[0].heard + servers[1].heard == []
    assert (await http.post("/x", content=b"x" * LIMIT)).text == "ok"


SLOW = {
    "head": "GET / HTTP/1.1\r\nHost: x\r\n",
    "body": "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n",
}


@pytest.mark.parametrize("part", SLOW.values(), ids=SLOW)
async def test_who_sends_too_slowly_is_cut_off(
    stack: AsyncExitStack, tmp_path: Path, part: str
) -> None:
    """The head as a whole has its time, however it trickles in; in a body, each pause has."""
    servers = await two(stack, OK)
    proxy, _ = await before(stack, tmp_path / "nginx", *servers, quick=True)
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    trickle = asyncio.create_task(_trickle(writer, part))
    async with asyncio.timeout(20):
        # Reset where the last line of the head came after the end.
        with suppress(ConnectionResetError):
            assert await reader.read() == b""
    trickle.cancel()
    writer.close()
    assert servers[0].heard + servers[1].heard == []


async def _trickle(writer: asyncio.StreamWriter, part: str) -> None:
    writer.write(part.encode())
    is_head = not part.endswith("\r\n\r\n")
    while is_head:
        await asyncio.sleep(0.2)
        writer.write(b"X-A: b\r\n")


NO_HTTP = {
    "nonsense": "nonsense\r\n\r\n",
    "no host": "GET / HTTP/1.1\r\n\r\n",
    "long path": f"GET /{'x' * 40_000} HTTP/1.1\r\nHost: x\r\n\r\n",
    "long header": f"GET / HTTP/1.1\r\nHost: x\r\nX-A: {'x' * 40_000}\r\n\r\n",
    "odd encoding": "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: odd\r\n\r\n",
}


@pytest.mark.parametrize("sent", NO_HTTP.values(), ids=NO_HTTP)
async def test_what_is_no_http_gets_a_problem_document(
    stack: AsyncExitStack, tmp_path: Path, sent: str
) -> None:
    proxy, _ = await before(stack, tmp_path / "nginx")
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    writer.write(sent.encode())
    async with asyncio.timeout(20):
        answer = (await reader.read()).decode()
    writer.close()
    assert "400 Bad Request" in answer.splitlines()[0]
    assert '"code": "bad_request"' in answer
    assert "application/problem+json" in answer


async def test_while_nobody_is_there_every_request_is_told_to_come_back(
    stack: AsyncExitStack, tmp_path: Path
) -> None:
    _, http = await before(stack, tmp_path / "nginx")
    for _ in range(6):
        is_problem(await http.get("/x"), 503, "service_unavailable")
    is_problem(await http.post("/x"), 503, "service_unavailable")
    is_problem(await http.request("TRACE", "/x"), 405, "method_not_allowed")


async def test_what_cannot_be_delivered_to_one_goes_to_the_other(
    stack: AsyncExitStack, tmp_path: Path
) -> None:
    """It was never sent: a POST too."""
    server = await stack.enter_async_context(upstream(lambda _: OK))
    nobody = Upstream(lambda _: None, port=free_port())
    _, http = await before(stack, tmp_path / "nginx", nobody, server)
    for method in ("GET", "POST", "PATCH", "DELETE") * 2:
        assert (await http.request(method, "/x")).text == "ok", method
    assert len(server.heard) == 8


@pytest.mark.parametrize("method", ["POST", "PATCH"])
@pytest.mark.parametrize("answer", [None, b""], ids=["hangs up", "hangs"])
async def test_what_may_have_been_done_is_not_sent_again(
    stack: AsyncExitStack, tmp_path: Path, method: str, answer: bytes | None
) -> None:
    servers = await two(stack, answer)
    _, http = await before(stack, tmp_path / "nginx", *servers, quick=True)
    is_problem(await http.request(method, "/x", content=b"{}"), 503, "service_unavailable")
    assert len(servers[0].heard + servers[1].heard) == 1


async def test_what_is_harmless_is_sent_again(stack: AsyncExitStack, tmp_path: Path) -> None:
    servers = await two(stack, None)
    _, http = await before(stack, tmp_path / "nginx", *servers)
    is_problem(await http.get("/x"), 503, "service_unavailable")
    assert [len(server.heard) for server in servers] == [1, 1]


async def test_tls_says_so_to_the_api(stack: AsyncExitStack, tmp_path: Path) -> None:
    folder = tmp_path / "nginx"
    folder.mkdir()
    await asyncio.to_thread(_certify, folder)
    servers = await two(stack, OK)
    proxy, _ = await before(stack, folder, *servers, tls=True)
    trust = ssl.create_default_context(cafile=str(folder / "fullchain.pem"))
    async with httpx2.AsyncClient(verify=trust) as http:
        url = f"https://localhost:{proxy.tls_port}"
        assert (await http.get(f"{url}/x")).text == "ok"
        refused = await http.get(f"{url}/metrics")
    is_problem(refused, 404, "not_found")
    assert "max-age" in refused.headers["strict-transport-security"]
    (heard,) = servers[0].heard + servers[1].heard
    assert b"X-Forwarded-Proto: https" in heard


_CERTIFY = (
    "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1"
    " -subj /CN=localhost -addext subjectAltName=DNS:localhost -keyout privkey.pem"
    " -out fullchain.pem"
)


def _certify(folder: Path) -> None:
    subprocess.run(_CERTIFY.split(), cwd=folder, check=True, capture_output=True)
