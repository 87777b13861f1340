"""Logs: one valid line an event whatever it holds, and nothing secret in any of them."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from email.message import EmailMessage
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from app.crud import users
from app.tasks.mail import Refused
from tests.support.client import Client
from tests.support.logs import Output, captured_logging, decoded
from tests.support.mails import queue

log = logging.getLogger("app.test")
MAX_LINE = 8192
CANARY = "Kiwi-Lantern-42"


class Unprintable:
    """An object that cannot be turned into text."""

    def __repr__(self) -> str:
        raise RuntimeError("no text")


@pytest.fixture
def logs() -> Iterator[Output]:
    """The process's logging as in production, but at its most talkative."""
    with captured_logging() as output:
        yield output


def one_line(logs: Output) -> dict[str, Any]:
    """The only event logged, from the only line of output."""
    line = logs.take()
    assert len(line) <= MAX_LINE
    [entry] = decoded(line)
    assert line.count("\n") == 1
    return entry


def apart(logs: Output) -> logging.Logger:
    """A logger without pytest's handlers, which raise on what cannot be turned into text."""
    logger = logging.Logger("app.test")
    logger.addHandler(logs.handler)
    return logger


# --- Hostile values --------------------------------------------------------------------------

HOSTILE: list[Any] = [
    "two\r\nlines",
    "escape \x1b[31m red \x1b]0;title\x07",
    "nul \0 and del \x7f",
    "separators \u2028 \u2029 \x85",
    "lone surrogate \ud800 \udfff",
    "😀" * 300_000,
    "x" * 1_000_000,
    '{"levelname": "CRITICAL"}',
    '"}\n{"level": "CRITICAL"}',
    float("nan"),
    float("inf"),
    10**5000,
    -(2**63) - 1,
    b"\xff\x00",
    {"levelname": "CRITICAL", "nested": {"deep": [1, 2, {"x": float("nan")}]}},
    {1: "a", None: "b", ("t",): "c"},
    ["x" * 100] * 1000,
    object(),
    Unprintable(),
    ValueError("\r\n"),
    "%s %d {} {name}",
    "",
    None,
]
IDS = [f"{number}-{type(value).__name__}" for number, value in enumerate(HOSTILE)]


@pytest.mark.parametrize("value", HOSTILE, ids=IDS)
def test_a_hostile_message_is_one_valid_line(value: Any, logs: Output) -> None:
    """A56"""
    apart(logs).info(value)
    entry = one_line(logs)
    assert (entry["level"], entry["logger"]) == ("INFO", "app.test")


@pytest.mark.parametrize("value", HOSTILE, ids=IDS)
def test_a_hostile_argument_or_extra_is_one_valid_line(value: Any, logs: Output) -> None:
    """A56"""
    apart(logs).warning("event %s", value, extra={"value": value, "other": "kept"})
    entry = one_line(logs)
    assert (entry["level"], entry["logger"]) == ("WARNING", "app.test")


def test_harmless_extras_keep_their_types(logs: Output) -> None:
    log.info("event", extra={"n": 7, "f": 1.5, "yes": True, "none": None, "text": "ñ"})
    entry = one_line(logs)
    assert entry["message"] == "event"
    assert [entry[key] for key in ("n", "f", "yes", "none", "text")] == [7, 1.5, True, None, "ñ"]


def test_a_record_with_very_many_fields_stays_short_and_keeps_its_own(logs: Output) -> None:
    """A56: ≤ 8 KB."""
    log.error("event", extra={f"field{number}": "😀" * 3000 for number in range(500)})
    entry = one_line(logs)
    assert (entry["level"], entry["message"]) == ("ERROR", "event")


def test_a_huge_trace_keeps_its_end(logs: Output) -> None:
    """A56: ≤ 8 KB, and the line that says what went wrong."""

    def deep(levels: int) -> None:
        if levels:
            deep(levels - 1)
        raise ValueError("😀" * 1000 + " the end")

    try:
        deep(50)
    except ValueError:
        log.exception("event")
    entry = one_line(logs)
    assert entry["message"] == "event"
    assert entry["trace"].endswith("the end")


def test_no_logged_value_poses_as_one_of_the_records_own_fields(logs: Output) -> None:
    """A56: fields not overridable."""
    fake = {
        "time": "1970-01-01T00:00:00.000Z",
        "level": "CRITICAL",
        "levelname": "CRITICAL",
        "logger": "root",
        "request_id": "forged",
        "user_id": 1,
    }
    log.info("event", extra={key: value for key, value in fake.items() if key != "levelname"})
    entry = one_line(logs)
    log.info({"message": "event"} | fake)
    other = one_line(logs)
    for found in (entry, other):
        assert (found["level"], found["logger"], found["message"]) == ("INFO", "app.test", "event")
        assert (found["request_id"], found["user_id"]) == (None, None)
        assert not found["time"].startswith("1970")


def test_the_time_is_utc_with_milliseconds(logs: Output) -> None:
    log.info("event")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", one_line(logs)["time"])


def test_wrong_arguments_cost_the_text_but_not_the_event(logs: Output) -> None:
    """A56: never lost."""
    arguments = ("x",)
    apart(logs).error("%d of %d", *arguments)
    assert one_line(logs)["level"] == "ERROR"


# --- Where it goes ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["uvicorn", "uvicorn.error", "uvicorn.asgi", "sqlalchemy.pool"])
def test_every_logger_of_the_process_writes_the_same_lines(name: str, logs: Output) -> None:
    logger = logging.getLogger(name)
    assert logger.handlers == []
    logger.error("event", extra={"color_message": "\x1b[36mevent"})
    entry = one_line(logs)
    assert (entry["logger"], entry["message"]) == (name, "event")
    assert "color_message" not in entry


def test_uvicorns_own_access_lines_are_off(logs: Output) -> None:
    """They would hold query strings."""
    logging.getLogger("uvicorn.access").error("GET /?token=x")
    assert logs.take() == ""


def test_configuring_again_replaces_and_does_not_repeat() -> None:
    with captured_logging(level="DEBUG") as first, captured_logging(level="WARNING") as second:
        log.info("too quiet")
        log.warning("event")
        assert first.take() == ""
        assert one_line(second)["message"] == "event"


def test_the_console_format_is_for_people() -> None:
    with captured_logging(level="INFO", as_json=False) as logs:
        log.warning("disk is %s", "full", extra={"hidden": "x"})
        log.info("lone surrogate \ud800")
        log.debug("too quiet")
        first, second = logs.take().splitlines()
    stamp = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}"
    assert re.fullmatch(stamp + r" WARNING app\.test: disk is full", first)
    assert second.endswith(r"lone surrogate \ud800")


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
    assert response.status_code == 200
    [line] = requests_in(logs.entries())
    assert line["request_id"] == "my-request-1"
    assert line["user_id"] == person.id
    assert line["route"] == "/api/v1/posts/{post_id}"
    assert line["path"] == f"/api/v1/posts/{post['id']}"
    assert (line["method"], line["status"]) == ("GET", 200)
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
    token = await client.login("ana@example.com", CANARY)
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
    assert_silent(logs.take(), token, token.split(".")[2], "6001234567")


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
    client: Client, logs: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A57: what the server said, which may quote the mail, is kept in the outbox alone."""

    class Mailer:
        async def send(self, _: EmailMessage) -> None:
            raise Refused(f"550 ana@example.com {CANARY}")

    dispatcher = client.app.state.dispatcher
    monkeypatch.setattr(dispatcher, "_mailer", Mailer())
    [mail_id] = await queue(client.database, "ana@example.com")
    await dispatcher.deliver(mail_id)
    output = logs.take()
    assert [line["mail_id"] for line in decoded(output) if "mail_id" in line] == [mail_id]
    assert_silent(output, "ana@example.com")
