"""Admission of logins to the hashing queue: a slow client holds no place in it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from starlette.types import Message, Receive, Scope, Send

from app.core.hashing import MOST_WAITING
from app.web.middleware.login_admission import LoginAdmissionMiddleware
from tests.support.client import API, PASSWORD, Client

FORM = {"Content-Type": "application/x-www-form-urlencoded"}
LOGIN = f"{API}/auth/login"


async def in_parts(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


async def test_a_form_that_comes_in_parts_logs_in(client: Client) -> None:
    email = (await client.register())["email"]
    form = f"username={email.replace('@', '%40')}&password={PASSWORD}".encode()
    for parts in ((form,), (form[:5], form[5:]), (form[:40], b"", form[40:], b"")):
        answer = await client.http.post(LOGIN, content=in_parts(*parts), headers=FORM)
        assert answer.status_code == 200, answer.text


async def test_what_the_limit_of_bodies_refuses_is_a_problem_document(client: Client) -> None:
    """A36, A40, A51: NUL, and more than MAX_BODY_BYTES without saying so before."""
    too_long = [b"username=a%40example.com&password="] + [b"x" * 65_536] * 5
    for parts, status in (([b"a=\0bc"], 400), ([b"a=b", b"c\0"], 400), (too_long, 413)):
        answer = await client.http.post(LOGIN, content=in_parts(*parts), headers=FORM)
        assert answer.status_code == status
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["request_id"] == answer.headers["x-request-id"]
        assert answer.headers["x-content-type-options"] == "nosniff"


async def test_nobody_who_is_still_sending_has_a_turn(client: Client) -> None:
    """A72: more logins than may wait, each a part of a form that never ends."""
    email = (await client.register())["email"]
    is_over, all_began = asyncio.Event(), asyncio.Event()
    began = 0

    async def trickle() -> AsyncIterator[bytes]:
        nonlocal began
        yield b"username=somebody%40example.com&password="
        began += 1
        if began == MOST_WAITING * 2:
            all_began.set()
        await is_over.wait()

    sending = [
        asyncio.ensure_future(client.http.post(LOGIN, content=trickle(), headers=FORM))
        for _ in range(MOST_WAITING * 2)
    ]
    try:
        async with asyncio.timeout(30):
            await all_began.wait()
        assert (await client.log_in(email))["access_token"]
    finally:
        is_over.set()
        await asyncio.gather(*sending)


async def test_a_client_that_hangs_up_leaves_no_turn(client: Client) -> None:
    passwords = client.app.state.passwords
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "path": LOGIN,
        "raw_path": LOGIN.encode(),
        "query_string": b"",
        "root_path": "",
        "scheme": "http",
        "headers": [(b"host", b"testserver"), (b"content-type", FORM["Content-Type"].encode())],
        "client": ("192.0.2.1", 1),
        "server": ("testserver", 80),
    }
    messages: list[Message] = [
        {"type": "http.request", "body": b"username=a", "more_body": True},
        {"type": "http.disconnect"},
    ]

    async def receive() -> Message:
        return messages.pop(0)

    async def send(_: Message) -> None:
        pass

    await client.app(scope, receive, send)
    assert not passwords._queue._having_turns


async def test_a_client_that_does_not_read_its_answer_has_no_turn(client: Client) -> None:
    """Their connection is full: `send` waits, for as long as they like."""
    queue = client.app.state.passwords._queue
    held: list[int] = []
    scope = {"type": "http", "method": "POST", "path": LOGIN, "app": client.app}

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        held.append(len(queue._having_turns))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def receive() -> Message:
        return {"type": "http.request", "body": b"username=a"}

    async def send(_: Message) -> None:
        held.append(len(queue._having_turns))

    await LoginAdmissionMiddleware(app)(scope, receive, send)
    assert held == [1, 0, 0]


async def test_who_reads_on_behind_the_body_hears_of_the_end() -> None:
    messages: list[Message] = [
        {"type": "http.request", "body": b"grant_type=refresh_token"},
        {"type": "http.disconnect"},
    ]
    heard: list[Message] = []

    async def app(_scope: Scope, receive: Receive, _send: Send) -> None:
        heard.extend([await receive(), await receive()])

    async def receive() -> Message:
        return messages.pop(0)

    async def send(_: Message) -> None:
        pass

    scope = {"type": "http", "method": "POST", "path": LOGIN}
    await LoginAdmissionMiddleware(app)(scope, receive, send)
    assert [message["type"] for message in heard] == ["http.request", "http.disconnect"]
