"""What is kept when the server process is killed or terminated."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
import time
from collections import Counter
from datetime import timedelta
from pathlib import Path

import httpx2
import pytest
from sqlalchemy import func, select, update

from app.db.engine import Database
from app.models.base import utc_now
from app.models.outbox import Mail, MailKind
from app.models.refresh_tokens import RefreshToken
from tests.support.client import API, PASSWORD
from tests.support.process import Server, environment, run_command, serving
from tests.support.smtp import Sink

pytestmark = pytest.mark.long

CRASHES = 10


@pytest.fixture
async def env(tmp_path: Path, sink: Sink) -> dict[str, str]:
    """Settings of a server on a migrated SQLite file, with the sink as its mail server."""
    variables = environment(
        data_dir=tmp_path / "data",
        database_url=f"sqlite+aiosqlite:///{tmp_path}/test.db",
        secret_key="tests-0123456789abcdefghijklmnopqrstuv",
        port=0,
        smtp_host="127.0.0.1",
        smtp_port=sink.port,
        smtp_tls="none",
    )
    status, _, complaint = await run_command("migrate", cwd=tmp_path, env=variables)
    assert status == 0, complaint
    return variables


def address(number: int) -> str:
    return f"person{number}@example.com"


def registration(number: int) -> dict[str, str]:
    return {"email": address(number), "name": "Ana", "password": PASSWORD}


def end_leases(folder: Path) -> None:
    """Put the clock forward for the mails that dead processes had claimed."""
    connection = sqlite3.connect(folder / "test.db")
    with connection:
        connection.execute(
            "UPDATE outbox SET next_attempt_at = '2020-01-01 00:00:00' WHERE state <> 'sent'"
        )
    connection.close()


async def register_and_kill(server: Server, number: int, sink: Sink, *, mid_mail: bool) -> None:
    """A registration answered 201, then kill -9: at once, or while its mail is handed over."""
    if mid_mail:
        sink.hanging.add(address(number))
    async with httpx2.AsyncClient(base_url=server.url) as http:
        response = await http.post(f"{API}/auth/register", json=registration(number))
    assert response.status_code == 201, response.text
    if mid_mail:
        await sink.arrived(lambda: sink.to(address(number)))
    assert await server.end(signal.SIGKILL) == -signal.SIGKILL
    sink.hanging.clear()


async def test_no_acknowledged_registration_and_no_mail_is_lost_by_kill_9(
    tmp_path: Path, env: dict[str, str], sink: Sink
) -> None:
    """A2, A4: every 201's user exists, every welcome mail arrives, at most 1 + crashes times."""
    for number in range(CRASHES):
        async with serving(tmp_path, env) as server:
            await register_and_kill(server, number, sink, mid_mail=number % 3 == 1)
        end_leases(tmp_path)
    people = [address(number) for number in range(CRASHES)]
    async with serving(tmp_path, env) as server:
        await sink.arrived(lambda: all(sink.to(person) for person in people))
        async with httpx2.AsyncClient(base_url=server.url) as http:
            for person in people:
                form = {"username": person, "password": PASSWORD}
                login = await http.post(f"{API}/auth/login", data=form)
                assert login.status_code == 200, f"{person}: acknowledged, and gone"
        assert await server.end(signal.SIGTERM) in {0, -signal.SIGTERM}
    copies = Counter(delivery.message_id for delivery in sink.deliveries)
    duplicates = sum(copies.values()) - len(copies)
    assert len(copies) == CRASHES, f"{len(copies)} mails, {duplicates} duplicates"
    assert all(len(delivery.recipients) == 1 for delivery in sink.deliveries)
    assert len({delivery.recipients[0] for delivery in sink.deliveries}) == CRASHES
    assert max(copies.values()) <= 1 + CRASHES, f"{duplicates} duplicates: {copies}"
    assert duplicates >= 3, "the mails caught in the middle of their delivery came up again"


async def test_what_was_answered_with_a_key_is_answered_again_after_kill_9(
    tmp_path: Path, env: dict[str, str]
) -> None:
    """A2, A4: a client that lost the answer and asks again gets it, byte by byte; one account,
    one mail."""
    key, answers = {"Idempotency-Key": "kill-9"}, list[httpx2.Response]()
    for _ in range(3):
        async with serving(tmp_path, env) as server:
            async with httpx2.AsyncClient(base_url=server.url) as http:
                url = f"{API}/auth/register"
                answers.append(await http.post(url, json=registration(1), headers=key))
            assert await server.end(signal.SIGKILL) == -signal.SIGKILL
    assert {(each.status_code, each.content) for each in answers} == {(201, answers[0].content)}
    replayed = ["idempotency-replayed" in each.headers for each in answers]
    assert replayed == [False, True, True]
    connection = sqlite3.connect(tmp_path / "test.db")
    counted = [
        connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
        for table in ("users", "outbox", "idempotency_keys")
    ]
    connection.close()
    assert counted == [1, 1, 1]


async def pass_the_grace(database: Database) -> None:
    """Let every refresh token have been used long before."""
    long_ago = utc_now() - timedelta(days=1)
    async with database.begin() as session:
        used = update(RefreshToken).where(RefreshToken.used_at.is_not(None))
        await session.execute(used.values(used_at=long_ago))


async def refresh(http: httpx2.AsyncClient, token: str) -> tuple[int, dict[str, str]]:
    response = await http.post(f"{API}/auth/refresh", json={"refresh_token": token})
    return response.status_code, response.json()


async def test_what_a_refresh_answered_outlives_kill_9(
    tmp_path: Path, env: dict[str, str], database_url: str, database: Database
) -> None:
    """A2, A26: the successor is good, a lost reply is given again, and who is out stays out."""
    env = env | {"DATABASE_URL": database_url}
    async with serving(tmp_path, env) as server, httpx2.AsyncClient(base_url=server.url) as http:
        await http.post(f"{API}/auth/register", json=registration(1))
        form = {"username": address(1), "password": PASSWORD}
        first = (await http.post(f"{API}/auth/login", data=form)).json()["refresh_token"]
        status, second = await refresh(http, first)
        assert status == 200
        assert await server.end(signal.SIGKILL) == -signal.SIGKILL
    async with serving(tmp_path, env) as server, httpx2.AsyncClient(base_url=server.url) as http:
        status, again = await refresh(http, first)
        assert (status, again["refresh_token"]) == (200, second["refresh_token"])
        status, third = await refresh(http, second["refresh_token"])
        assert status == 200
        await pass_the_grace(database)
        status, _ = await refresh(http, first)
        assert status == 401
        assert await server.end(signal.SIGKILL) == -signal.SIGKILL
    async with serving(tmp_path, env) as server, httpx2.AsyncClient(base_url=server.url) as http:
        for token in (first, second["refresh_token"], third["refresh_token"]):
            status, _ = await refresh(http, token)
            assert status == 401, "the session is over"
        headers = {"Authorization": f"Bearer {third['access_token']}"}
        assert (await http.get(f"{API}/users/me", headers=headers)).status_code == 401
    async with database.begin(readonly=True) as session:
        statement = select(func.count()).where(Mail.kind == MailKind.session_reused)
        assert await session.scalar(statement) == 1


async def test_a_mail_of_a_transaction_that_never_committed_is_not_sent(
    tmp_path: Path, env: dict[str, str], sink: Sink
) -> None:
    """A4: no mail goes to a user whose registration was refused."""
    async with serving(tmp_path, env) as server:
        async with httpx2.AsyncClient(base_url=server.url) as http:
            weak = await http.post(
                f"{API}/auth/register", json=registration(1) | {"password": "short"}
            )
            assert weak.status_code == 422
            response = await http.post(f"{API}/auth/register", json=registration(2))
            assert response.status_code == 201
        await sink.arrived(lambda: sink.to(address(2)))
        assert await server.end(signal.SIGTERM) in {0, -signal.SIGTERM}
    assert [delivery.recipients for delivery in sink.deliveries] == [[address(2)]]


async def slow_request(
    server: Server, body: bytes
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A registration whose head is sent; returns when the server is waiting for the body."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    head = (
        f"POST {API}/auth/register HTTP/1.1\r\nHost: testserver\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        "Expect: 100-continue\r\n\r\n"
    )
    writer.write(head.encode())
    assert b" 100 " in await reader.readline()
    return reader, writer


async def test_sigterm_lets_a_request_in_flight_finish_and_exits_within_ten_seconds(
    tmp_path: Path, env: dict[str, str], sink: Sink
) -> None:
    """A60: even with a request that never ends and a mail server that hangs."""
    sink.hanging.add(address(1))
    body = httpx2.Request("POST", "http://x", json=registration(2)).content
    async with serving(tmp_path, env) as server:
        async with httpx2.AsyncClient(base_url=server.url) as http:
            response = await http.post(f"{API}/auth/register", json=registration(1))
            assert response.status_code == 201
        await sink.arrived(lambda: sink.to(address(1)))
        reader, writer = await slow_request(server, body)
        _, stuck = await slow_request(server, body)
        started = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        await server.logged("Shutting down")
        writer.write(body)
        await reader.readuntil(b"HTTP/1.1 ")
        assert (await reader.readline()).startswith(b"201")
        async with asyncio.timeout(20):
            status = await server.process.wait()
        took = time.monotonic() - started
        for each in (writer, stuck):
            each.close()
    assert status in {0, -signal.SIGTERM}
    assert took <= 10, f"{took:.1f} s"
    connection = sqlite3.connect(tmp_path / "test.db")
    found = connection.execute("SELECT email FROM users ORDER BY email").fetchall()
    connection.close()
    assert found == [(address(1),), (address(2),)]
