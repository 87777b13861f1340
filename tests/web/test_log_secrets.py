"""Logs of requests: actor, route and result, and no secret in any line."""

from __future__ import annotations

import logging
import re
import sqlite3
from email.message import EmailMessage
from typing import Any

import httpx2
import psycopg
import pymysql
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from app.crud import posts, users
from app.crud.outbox import Failure
from app.tasks.dispatcher import Dispatcher
from app.tasks.mail import NotSent
from tests.support.canaries import CANARY, PASSWORD, Watch, check_response
from tests.support.client import Client
from tests.support.faults import Fault, failing_writes, sqlite_error
from tests.support.logs import Output, decoded
from tests.support.mails import queue

# --- The access line -------------------------------------------------------------------------


def requests_in(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [line for line in lines if line["message"] == "request"]


async def test_the_access_line_tells_who_did_what_and_how_it_went(
    client: Client, logs: Output
) -> None:
    person = await client.user()
    post = await person.write()
    logs.take()
    response = await person.get(
        f"/posts/{post['id']}?secret={CANARY}", headers={"X-Request-ID": "my-request-1"}
    )
    assert response.status_code == 422, "an unknown parameter"
    [line] = requests_in(logs.entries())
    assert line["request_id"] == "my-request-1"
    assert line["user_id"] == person.id
    assert line["route"] == "/api/v1/posts/{post_id}"
    assert line["path"] == f"/api/v1/posts/{post['id']}"
    assert (line["method"], line["status"]) == ("GET", 422)
    assert line["ip"] == "127.0.0.1"
    assert 0 < line["duration_ms"] < 60_000


async def test_a_request_for_nothing_has_a_line_without_route_and_user(
    client: Client, logs: Output
) -> None:
    await client.get("/nowhere%0D%0Afake%1B[31m?x=1")
    [line] = requests_in(logs.entries())
    assert line["path"] == "/api/v1/nowhere\r\nfake\x1b[31m"
    assert (line["status"], line["route"], line["user_id"]) == (404, None, None)
    assert len(line["request_id"]) == 32


async def test_a_defect_is_logged_once_with_its_trace_and_its_request(
    client: Client, logs: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A51: exactly one log record with the trace."""

    async def defect(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError("the defect")

    monkeypatch.setattr(users, "register", defect)
    body = {"email": "ana@example.com", "name": "Ana", "password": CANARY}
    response = await client.post("/auth/register", body)
    assert response.status_code == 500
    lines = logs.entries()
    [trace] = [line for line in lines if "trace" in line]
    assert "ZeroDivisionError: the defect" in trace["trace"]
    assert trace["request_id"] == response.json()["request_id"]
    assert (trace["level"], requests_in(lines)[0]["status"]) == ("ERROR", 500)


@pytest.mark.parametrize("hidden_by", [None, RuntimeError])
async def test_a_defect_in_the_database_is_logged_by_its_number_and_its_place(
    client: Client,
    logs: Output,
    monkeypatch: pytest.MonkeyPatch,
    hidden_by: type[Exception] | None,
) -> None:
    """Without the driver's text, also where something else was raised because of it."""
    ana, database = await client.user(), client.database
    fault, known = DEFECTS[database.dialect]
    create = posts.create

    def hiding(*given: Any, **named: Any) -> Any:
        try:
            return create(*given, **named)
        except Exception as error:
            raise (hidden_by or ValueError)(f"could not: {error}") from error

    if hidden_by is not None:
        monkeypatch.setattr(posts, "create", hiding)
    logs.take()
    with failing_writes(database, fault) as sabotage:
        response = await ana.post("/posts", {"title": "A", "content": ""})
    assert (response.status_code, sabotage.hits) == (500, 1)
    output = logs.take()
    [line] = [line for line in decoded(output) if line["message"] == "unhandled database error"]
    assert line["level"] == "ERROR"
    assert line.items() >= known.items()
    assert re.search(r"(^| < )app/crud/posts\.py:\d+ create( < |$)", line["where"])
    assert re.match(r"app/[a-z/]+\.py:\d+ \w+", line["where"])
    assert "app/" in line["trace"]
    assert CANARY not in output


# A defect of ours as each driver reports it, and what of it is logged.
DEFECTS: dict[str, tuple[Fault, dict[str, object]]] = {
    "sqlite": (
        lambda: sqlite_error(sqlite3.OperationalError, f"no such table: {CANARY}", "SQLITE_ERROR"),
        {"error": "OperationalError", "sqlite": "SQLITE_ERROR"},
    ),
    "mysql": (
        lambda: pymysql.err.ProgrammingError(1146, f"Table '{CANARY}' doesn't exist"),
        {"error": "ProgrammingError", "errno": 1146},
    ),
    "postgresql": (
        lambda: psycopg.errors.NotNullViolation(f"null value: DETAIL: ({CANARY})"),
        {"error": "NotNullViolation", "sqlstate": "23502"},
    ),
}


# --- Nothing secret --------------------------------------------------------------------------


def assert_silent(output: str, *secrets: str) -> None:
    assert decoded(output), "something was logged at all"
    for secret in (CANARY, "$argon2", "grant_type", *secrets):
        assert secret not in output, f"{secret!r} in the log"


async def test_neither_passwords_nor_tokens_nor_bodies_are_logged(
    client: Client, logs: Output
) -> None:
    """A44, A57: at level DEBUG, drivers and libraries included."""
    body = {"email": "ana@example.com", "name": "Ana", "password": CANARY, "phone": "6001234567"}
    assert (await client.post("/auth/register", body)).status_code == 201
    assert (await client.post("/auth/register", body)).status_code == 409
    login = await client.log_in("ana@example.com", CANARY)
    token, refresh_token = login["access_token"], login["refresh_token"]
    for _ in range(2):
        again = await client.post("/auth/refresh", {"refresh_token": refresh_token})
        assert again.status_code == 200
    form = {"username": "ana@example.com", "password": CANARY + "!"}
    assert (await client.request("POST", "/auth/login", data=form)).status_code == 401
    me = await client.get("/users/me", headers={"Authorization": f"Bearer {token}"})
    assert me.status_code == 200
    bad = await client.get("/users/me", headers={"Authorization": f"Bearer {token}x"})
    assert bad.status_code == 401
    weak = body | {"password": f"{CANARY}\0", "surprise": CANARY}
    assert (await client.post("/auth/register", weak)).status_code == 422
    broken = f'{{"password": "{CANARY}"'
    headers = {"Content-Type": "application/json"}
    cut = await client.request("POST", "/auth/register", content=broken, headers=headers)
    assert cut.status_code in {400, 422}
    assert (await client.get(f"/posts?q={CANARY}&cursor={CANARY}")).status_code == 400
    assert (await client.get(f"/users/me?token={CANARY}")).status_code == 401
    given_out = (token, token.split(".")[2], refresh_token, again.json()["refresh_token"])
    assert_silent(logs.take(), *given_out, "6001234567")


async def test_a_row_the_database_refuses_is_not_logged(
    client: Client, logs: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A57: PostgreSQL quotes the whole failing row in the text of its error."""
    monkeypatch.setattr(users, "email_key", lambda _: None)
    body = {"email": "ana@example.com", "name": "Ana", "password": CANARY}
    assert (await client.post("/auth/register", body)).status_code in {409, 500}
    assert_silent(logs.take(), "ana@example.com")


async def test_a_statement_that_fails_is_logged_without_its_parameters(
    client: Client, logs: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A57"""

    async def broken(session: AsyncSession, **_: Any) -> None:
        await session.execute(text("SELECT :secret FROM nowhere"), {"secret": CANARY})

    monkeypatch.setattr(users, "register", broken)
    body = {"email": "ana@example.com", "name": "Ana", "password": CANARY}
    assert (await client.post("/auth/register", body)).status_code in {500, 503}
    assert_silent(logs.take(), "ana@example.com")


async def test_a_database_outage_is_logged_without_its_url(
    client: Client, logs: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refused(*_: Any, **__: Any) -> None:
        raise ConnectionRefusedError(f"mysql://root:{CANARY}@db")

    monkeypatch.setattr(users, "register", refused)
    body = {"email": "ana@example.com", "name": "Ana", "password": CANARY}
    assert (await client.post("/auth/register", body)).status_code == 503
    assert_silent(logs.take())


async def test_a_failed_delivery_is_logged_without_address_and_answer(
    client: Client, logs: Output
) -> None:
    """A57: what the server said, which may quote the mail, is kept in the outbox alone."""

    class Mailer:
        async def send(self, _: EmailMessage) -> None:
            raise NotSent(Failure.refused, f"550 ana@example.com {CANARY}")

    dispatcher = Dispatcher(client.database, Mailer(), client.app.state.settings)
    [mail_id] = await queue(client.database, "ana@example.com")
    await dispatcher.deliver(mail_id)
    output = logs.take()
    assert [line["mail_id"] for line in decoded(output) if "mail_id" in line] == [mail_id]
    assert_silent(output, "ana@example.com")


# --- The watch over the whole suite ----------------------------------------------------------


def test_the_watch_sees_secrets_wherever_they_stand(log_watch: Watch) -> None:
    """A57: what every test is held against does find something."""
    log = logging.getLogger("app.test")
    seen = log_watch.seen
    log.warning("message %s", PASSWORD)
    log.warning("extra", extra={"token": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.x"})
    try:
        raise ValueError("$argon2id$v=19$m=8")
    except ValueError:
        log.exception("trace")
    log.warning("harmless")
    assert (len(log_watch.take()), log_watch.seen - seen) == (3, 4)


async def test_requests_are_watched(client: Client, log_watch: Watch) -> None:
    seen = log_watch.seen
    await client.get("/health")
    assert log_watch.seen > seen


@pytest.mark.parametrize(
    ("path", "headers", "body"),
    [
        ("/users/me", {}, f'{{"detail": "{PASSWORD}"}}'),
        ("/users/me", {"X-Hash": "$argon2id$v=19"}, "{}"),
        ("/users/me", {}, "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.x"),
    ],
)
def test_a_response_that_shows_a_secret_fails(
    path: str, headers: dict[str, str], body: str
) -> None:
    """A57"""
    request = httpx2.Request("GET", f"http://testserver{path}")
    with pytest.raises(AssertionError, match="shows a secret"):
        check_response(httpx2.Response(200, headers=headers, text=body, request=request))
