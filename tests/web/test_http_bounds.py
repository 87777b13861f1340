"""Endless requests sent straight to the server: its memory for them is bounded."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
import uvicorn
from starlette.types import Message, Receive, Scope, Send
from uvicorn.server import ServerState

from app.server import protocol
from app.server import serving as serving_module
from app.server.protocol import MAX_HEAD, BoundedProtocol
from tests.conftest import SECRET, migrate
from tests.support.process import Server, environment, serving

MIB = 2**20
FLOOD = 24 * MIB
FLOOD_SECONDS = 3
GROWTH_KIB = 20 * 1024
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
GET = b"GET /health HTTP/1.1\r\nHost: localhost\r\n"
POST = (
    b"POST /api/v1/auth/login HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n"
    b"Content-Type: application/x-www-form-urlencoded\r\n\r\n"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a database is that was migrated."""
    folder = tmp_path_factory.mktemp("bounds")
    migrate(f"sqlite+aiosqlite:///{folder}/test.db", folder)
    return folder


@pytest.fixture(scope="module")
async def server(folder: Path) -> AsyncIterator[Server]:
    url = f"sqlite+aiosqlite:///{folder}/test.db"
    settings = {"database_url": url, "data_dir": folder, "secret_key": SECRET}
    # What is no valid request is counted too, and hundreds of those come from one address here.
    env = environment(port=0, rate_limit_enabled=False, **settings)
    async with serving(folder, env) as server:
        await ask(server, GET + b"\r\n")
        yield server


@asynccontextmanager
async def connected(server: Server) -> AsyncIterator[Streams]:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    try:
        yield reader, writer
    finally:
        writer.close()


async def answer(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], bytes]:
    """The status, the headers and the body of the next answer."""
    async with asyncio.timeout(30):
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        status, *lines = head.strip().split("\r\n")
        headers = {
            name.lower(): value for name, _, value in (each.partition(": ") for each in lines)
        }
        return (
            int(status.split()[1]),
            headers,
            await reader.readexactly(int(headers["content-length"])),
        )


async def ask(server: Server, request: bytes) -> int:
    async with connected(server) as (reader, writer):
        writer.write(request)
        return (await answer(reader))[0]


def resident_kib(server: Server, name: str = "VmRSS") -> int:
    status = Path(f"/proc/{server.process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith(f"{name}:"))


async def flood(server: Server, beginning: bytes, part: bytes) -> bytes:
    """Begin a request, send a part of it over and over, for some seconds at most, and read what
    comes; return the first of it."""
    async with connected(server) as (reader, writer):
        sent, came = 0, bytearray()

        async def read() -> None:
            with suppress(ConnectionError):
                while got := await reader.read(65_536):
                    came.extend(got[: 65_536 - len(came)])

        reading = asyncio.create_task(read())
        writer.write(beginning)
        with suppress(ConnectionError, TimeoutError):
            async with asyncio.timeout(FLOOD_SECONDS):
                while sent < FLOOD and not reading.done():
                    writer.write(part)
                    sent += len(part)
                    await writer.drain()
        await asyncio.wait({reading}, timeout=FLOOD_SECONDS)
        reading.cancel()
        return bytes(came)


LINE = b"x-" + b"a" * 60 + b": " + b"b" * 190 + b"\r\n"
FLOODS = {
    "request line": (b"GET /", b"a" * 16_384),
    "header line": (GET + b"X-Long: ", b"a" * 16_384),
    "name of a header": (GET, b"a" * 16_384),
    "headers": (GET, LINE * 64),
    "small headers": (GET, b"a:b\r\n" * 4_096),
    "folded header": (GET + b"X-Long: a\r\n", b" b\r\n" * 4_096),
    "method": (b"", b"GET" * 4_096),
    "empty lines": (b"", b"\r\n" * 8_192),
    "chunk extension": (POST + b"1;", b"a" * 16_384),
    "chunk extensions": (POST, b"1;" + b"a" * 16_384 + b"\r\nx\r\n"),
    "size of a chunk": (POST, b"0" * 16_384),
    "trailer line": (POST + b"1\r\nx\r\n0\r\nX-Long: ", b"a" * 16_384),
    "trailers": (POST + b"1\r\nx\r\n0\r\n", LINE * 64),
    "body": (POST, b"4000\r\n" + b"a" * 16_384 + b"\r\n"),
    "requests in a row": (b"", (GET + b"\r\n") * 400),
    "posts in a row": (b"", (POST + b"1\r\nx\r\n0\r\n\r\n") * 100),
    "upgrade": (GET + b"Connection: upgrade\r\nUpgrade: websocket\r\n\r\n", b"a" * 16_384),
}
# Where it is another answer: what is no HTTP, a body without an end, requests that are complete.
ANSWERS = {
    "folded header": b"400",
    "method": b"400",
    "body": b"413",
    "requests in a row": b"200",
    "posts in a row": b"422",
    "upgrade": b"200",
}


@pytest.mark.long
@pytest.mark.parametrize("kind", FLOODS)
async def test_a_request_without_an_end_costs_little_memory(server: Server, kind: str) -> None:
    before = resident_kib(server)
    came = await flood(server, *FLOODS[kind])
    # Who still sends when the connection is closed may miss the answer.
    assert came[9:12] in {ANSWERS.get(kind, b"431"), b""}, came[:200]
    assert resident_kib(server) - before < GROWTH_KIB
    assert await ask(server, GET + b"\r\n") == 200


async def test_a_refusal_looks_like_every_other(server: Server) -> None:
    for request, status, code in [
        (GET + b"X-Long: " + b"a" * 2 * MAX_HEAD, 431, "request_header_fields_too_large"),
        (b"this is no HTTP\r\n\r\n", 400, "bad_request"),
    ]:
        async with connected(server) as (reader, writer):
            writer.write(request)
            found, headers, body = await answer(reader)
            assert found == status
            assert headers["content-type"] == "application/problem+json"
            assert headers["connection"] == "close"
            assert headers["x-content-type-options"] == "nosniff"
            assert "date" in headers
            problem = json.loads(body)
            assert (problem["status"], problem["code"]) == (status, code)
            assert problem["request_id"] == headers["x-request-id"]
            assert await reader.read() == b""
    assert await ask(server, GET + b"\r\n") == 200


# --- What stays as it is -------------------------------------------------------------------------


async def _echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with the path, and the length of the body; on /early the answer begins first."""
    start: Message = {"type": "http.response.start", "status": 200, "headers": []}
    if scope["path"] == "/early":
        await send(start)
    size, more = 0, True
    while more:
        message = await receive()
        size += len(message.get("body", b""))
        more = message.get("more_body", False)
    if scope["path"] == "/slow":
        await asyncio.sleep(0.2)
    if scope["path"] != "/early":
        await send(start)
    text = f"{scope['path']} {size} {len(scope['headers'])}\n"
    await send({"type": "http.response.body", "body": text.encode()})


@pytest.fixture
async def port() -> AsyncIterator[int]:
    """Where that is served, in this process."""
    config = uvicorn.Config(_echo, lifespan="off", log_config=None, ws="none")
    config.load()
    state = ServerState()
    loop = asyncio.get_running_loop()
    listening = await loop.create_server(lambda: BoundedProtocol(config, state, {}), "127.0.0.1", 0)
    yield listening.sockets[0].getsockname()[1]
    listening.close()
    for connection in [*state.connections]:
        connection.transport.abort()
    await asyncio.gather(*state.tasks)


async def exchange(port: int, *parts: bytes, pause: float = 0) -> bytes:
    """Send these parts, and return all that comes until the connection ends."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    got = bytearray()
    with suppress(ConnectionError):
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(pause)
    with suppress(ConnectionError):
        async with asyncio.timeout(30):
            while part := await reader.read(65_536):
                got.extend(part)
    writer.close()
    return bytes(got)


def get(path: str, *lines: str) -> bytes:
    return "\r\n".join([f"GET {path} HTTP/1.1", "Host: localhost", *lines, "", ""]).encode()


LAST = get("/last", "Connection: close")


def paths(got: bytes) -> list[str]:
    """The paths that were answered, in their order."""
    return re.findall(r"(/[a-z0-9]+) [0-9]+ [0-9]+\n", got.decode())


async def test_large_heads_are_let_in_up_to_the_bound(port: int) -> None:
    lines = [f"X-Header-{number}: {'a' * 1_000}" for number in range(60)]
    got = await exchange(port, get("/large", *lines), get("/long", f"X: {'a' * 65_000}"), LAST)
    assert paths(got) == ["/large", "/long", "/last"]
    assert b"/large 0 61\n" in got


async def test_a_head_that_comes_in_drops_is_counted_as_one(port: int) -> None:
    got = await exchange(
        port, get("/first"), get("/x")[:-2], *[b"X: " + b"a" * 9_000 + b"\r\n"] * 8
    )
    assert paths(got) == ["/first"]
    assert b"\r\n\r\n" in got.partition(b"HTTP/1.1 431 ")[2]


async def test_thousands_of_requests_in_a_row_are_answered_in_their_order(port: int) -> None:
    requests = [get(f"/n{number}") for number in range(3_000)]
    got = await exchange(port, b"".join(requests), LAST)
    assert paths(got) == [*(f"/n{number}" for number in range(3_000)), "/last"]


async def test_bodies_in_a_row_arrive_whole(port: int) -> None:
    sizes = [1, 8_000, 8_192, 70_000, 300_000, 3]
    posts = [
        b"POST /p%d HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % (number, size)
        + b"b" * size
        for number, size in enumerate(sizes)
    ]
    got = await exchange(port, b"".join(posts) + LAST)
    assert re.findall(r"/p[0-9] ([0-9]+) ", got.decode()) == [*map(str, sizes)]
    assert paths(got)[-1] == "/last"


async def test_chunks_of_single_bytes_are_a_body_like_any_other(port: int) -> None:
    head = b"POST /tiny HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    got = await exchange(port, head + b"1\r\nx\r\n" * 40_000 + b"0\r\n\r\n" + LAST)
    assert b"/tiny 40000 " in got
    assert paths(got) == ["/tiny", "/last"]


CHUNKED = b"POST %s HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
TRAILERS = b"Authorization: Bearer x\r\nExpect: 100-continue\r\nX-Forwarded-For: 192.0.2.9\r\n"


@pytest.mark.parametrize("cut", [None, 4, 30])
async def test_trailers_are_no_headers(port: int, cut: int | None) -> None:
    """Neither of their own request nor of the next one, in whatever parts they arrive; whether
    the request is under way (/p1, /slow) or waits for its turn (/p2)."""
    last = b"1\r\nx\r\n0\r\n"
    for path in (b"/p1", b"/slow"):
        parts = [CHUNKED % path + last + TRAILERS[:cut], TRAILERS[cut:] if cut else b""]
        rest = b"\r\n" + CHUNKED % b"/p2" + last + TRAILERS + b"\r\n" + LAST
        got = await exchange(port, *parts, rest, pause=0.05)
        answers = [path + b" 1 2", b"/p2 1 2", b"/last 0 2"]
        assert re.findall(rb"/[a-z0-9]+ [0-9]+ [0-9]+", got) == answers
        assert b"100 Continue" not in got


async def test_nobody_is_who_a_trailer_says(server: Server) -> None:
    """Read by the application itself: were it a header, it would be a bad token."""
    head = CHUNKED % b"/api/v1/auth/email/verify/resend"
    for trailer in (b"", b"Authorization: Bearer x\r\n"):
        async with connected(server) as (reader, writer):
            writer.write(head + b"0\r\n" + trailer + b"\r\n")
            status, _, body = await answer(reader)
            assert (status, json.loads(body)["code"]) == (401, "not_authenticated")


async def test_the_answer_before_an_endless_head_is_given(port: int) -> None:
    got = await exchange(port, get("/slow") + get("/x")[:-2] + b"X: " + b"a" * 200_000)
    assert paths(got) == ["/slow"]
    assert b"connection: close" in got
    assert b"431" not in got


async def test_an_answer_that_has_begun_is_cut_off_by_trailers_without_an_end(port: int) -> None:
    head = b"POST /early HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    got = await exchange(port, head + b"1\r\nx\r\n", b"0\r\nX: ", b"a" * 200_000, pause=0.1)
    assert b"431" not in got
    assert paths(got) == []


async def test_trailers_without_an_end_are_refused_while_the_body_is_read(port: int) -> None:
    head = b"POST /late HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    got = await exchange(port, head + b"1\r\nx\r\n", b"0\r\nX: ", b"a" * 90_000, pause=0.1)
    assert got.startswith(b"HTTP/1.1 431 ")
    assert paths(got) == []


async def test_what_is_no_http_is_refused_after_what_was(port: int) -> None:
    got = await exchange(port, get("/first"), b"what?\r\n\r\n", pause=0.2)
    assert paths(got) == ["/first"]
    assert b'"code":"bad_request"' in got.partition(b"HTTP/1.1 400 ")[2]


async def test_who_goes_on_sending_after_a_refusal_is_cut_off(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "_LINGER_SECONDS", 60)
    monkeypatch.setattr(protocol, "_LINGER_BYTES", 500_000)
    got = await exchange(port, get("/x")[:-2] + b"X: ", *[b"a" * 65_536] * 40)
    assert b"431" in got or got == b""


def test_the_server_speaks_the_bounded_protocol(monkeypatch: pytest.MonkeyPatch) -> None:
    met: list[uvicorn.Config] = []

    def run(server: serving_module.Server, _: object) -> None:
        met.append(server.config)
        server.started = True

    monkeypatch.setattr(serving_module.Server, "run", run)
    serving_module.serve("app.main:create_app", [], port=0, log_config=None)
    assert met[0].http is BoundedProtocol
