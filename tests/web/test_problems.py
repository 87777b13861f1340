"""Errors have one format, a stable code, and texts in the reader's language."""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from app.core import i18n
from tests.support.apps import client_of
from tests.support.client import API, PASSWORD, Client
from tests.support.problems import problem

ORIGIN = "https://app.example.com"


async def test_a_call_without_credentials_is_told_to_log_in(client: Client) -> None:
    """A28, A51: no error code in the challenge: nothing was wrong with what came."""
    for headers in ({}, {"Authorization": "Basic YTpi"}):
        response = await client.get("/users/me", headers=headers)
        problem(response, 401, "not_authenticated")
        assert response.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("header", ["Bearer nonsense", "Bearer ", "Bearer", "bearer a.b.c"])
async def test_a_call_with_bad_credentials_is_told_so(client: Client, header: str) -> None:
    """A28, A51"""
    response = await client.get("/users/me", headers={"Authorization": header})
    problem(response, 401, "invalid_token")
    assert response.headers["www-authenticate"] == 'Bearer error="invalid_token"'
    public = await client.get("/posts", headers={"Authorization": header})
    problem(public, 401, "invalid_token")


async def test_two_authorization_headers_are_refused(client: Client) -> None:
    """A28: whichever of them another server on the way may have looked at."""
    ana = await client.user()
    header = ("Authorization", f"Bearer {ana.token}")
    assert (await ana.get("/users/me")).status_code == 200
    url = f"{API}/users/me"
    response = await client.http.request("GET", url, headers=[header, header])
    problem(response, 401, "invalid_token")


async def test_a_wrong_login_is_an_error_of_its_own(client: Client) -> None:
    """A51"""
    form = {"username": "nobody@example.com", "password": PASSWORD}
    response = await client.request("POST", "/auth/login", data=form)
    problem(response, 401, "invalid_credentials")
    assert response.headers["www-authenticate"] == "Bearer"


async def test_a_denied_caller_learns_which_permission_is_missing(client: Client) -> None:
    """A28, A51"""
    ana = await client.user()
    response = await ana.get("/users")
    assert "users:read" in problem(response, 403, "insufficient_scope")["detail"]
    challenge = 'Bearer error="insufficient_scope", scope="users:read"'
    assert response.headers["www-authenticate"] == challenge


async def test_what_is_not_there_is_not_found(client: Client) -> None:
    """A51: an unknown row, an unknown path, an unknown file, a path with a slash too many."""
    for path in ("/posts/1", "/nothing", "/posts/", "/errors/nothing", "/health/x"):
        problem(await client.get(path), 404, "not_found")
    for path in ("/static/nothing.css", "/static/../main.py", "/nothing"):
        problem(await client.http.get(path), 404, "not_found")


async def test_a_wrong_method_is_told_the_right_ones(client: Client) -> None:
    """A51"""
    response = await client.put("/posts")
    problem(response, 405, "method_not_allowed")
    assert response.headers["allow"] == "GET, HEAD, POST"
    response = await client.delete("/health")
    problem(response, 405, "method_not_allowed")
    assert response.headers["allow"] == "GET, HEAD"


async def test_conflicts_stale_versions_and_large_bodies_have_their_status(client: Client) -> None:
    """A51: 409, 412, 413"""
    ana = await client.user()
    body = {"email": ana.email.upper(), "name": "Ana", "password": PASSWORD}
    problem(await client.post("/auth/register", body), 409, "email_taken")
    post = await ana.write()
    stale = {"If-Match": '"99"'}
    response = await ana.patch(f"/posts/{post['id']}", {"title": "New"}, headers=stale)
    problem(response, 412, "precondition_failed")
    large = {"title": "x" * 300_000}
    problem(await ana.patch(f"/posts/{post['id']}", large), 413, "payload_too_large")


async def test_a_broken_body_is_a_bad_request_or_invalid_but_never_shown(client: Client) -> None:
    """A51"""
    headers = {"Content-Type": "application/json"}
    response = await client.post("/auth/register", content=b'{"a": ', headers=headers)
    (defect,) = problem(response, 422, "validation_error")["errors"]
    assert defect["type"] == "json_invalid"
    response = await client.post("/auth/register", content=b'"\xff"', headers=headers)
    problem(response, 400, "bad_request")
    response = await client.get("/posts", params={"cursor": "nonsense"})
    problem(response, 400, "invalid_cursor")


async def test_each_defect_of_the_input_names_its_field(client: Client) -> None:
    """A51: all at once; fields by their path, parameters by their name."""
    admin = await client.admin()
    body = {"title": "", "tags": ["ok", ""], "status": "x", "author_id": 1}
    response = await admin.post("/posts", body)
    errors = problem(response, 422, "validation_error")["errors"]
    assert {(error["field"], error["type"]) for error in errors} == {
        ("title", "string_too_short"),
        ("content", "missing"),
        ("tags.1", "tag_invalid"),
        ("status", "enum"),
        ("author_id", "extra_forbidden"),
    }
    response = await admin.get("/users/1/posts", params={"page_size": 101, "x": 1})
    errors = problem(response, 422, "validation_error")["errors"]
    assert {error["field"] for error in errors} == {"page_size", "x"}
    response = await admin.get("/users/0/posts")
    errors = problem(response, 422, "validation_error")["errors"]
    assert {error["field"] for error in errors} == {"user_id"}


async def test_a_storm_of_defects_is_cut_short(client: Client) -> None:
    """A37: the answer does not grow with the number of mistakes."""
    body = {f"field {number} {'x' * 200}": 1 for number in range(500)}
    response = await client.post("/auth/register", body)
    errors = problem(response, 422, "validation_error")["errors"]
    assert len(errors) == 50
    assert all(len(error["field"]) <= 100 for error in errors)


# --- Errors nobody planned -------------------------------------------------------------------


@pytest.fixture
async def browser(client: Client, tmp_path: Path) -> AsyncIterator[Client]:
    """A client of an app with CORS, whose parts tests break."""
    async with client_of(client, tmp_path, cors_origins=[ORIGIN]) as browser:
        yield browser


def failing_with(error: Exception) -> Any:
    async def fail(*_: object, **__: object) -> None:
        raise error

    return fail


async def test_a_defect_is_logged_once_and_shown_to_nobody(
    browser: Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A51: 500 with CORS and security headers, without any trace of what happened."""
    monkeypatch.setattr("app.crud.posts.read", failing_with(LookupError("c4n4ry in a defect")))
    response = await browser.get("/posts/1", headers={"Origin": ORIGIN})
    problem(response, 500, "internal_error")
    assert response.headers["access-control-allow-origin"] == ORIGIN
    assert response.headers["cache-control"] == "no-store"
    assert "frame-ancestors 'none'" in response.headers["content-security-policy"]
    shown = response.text + repr(response.headers)
    assert not re.search(r"c4n4ry|LookupError|Traceback|\.py\b", shown)
    records = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert [record.getMessage() for record in records] == ["unhandled exception"]
    trace = logging.Formatter().format(records[0])
    assert "LookupError: c4n4ry in a defect" in trace
    assert "fail" in trace


async def test_an_outage_asks_to_come_back(
    browser: Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A51, A59: 503 with Retry-After; a warning, but no trace: nothing is wrong with the code."""
    lost = OperationalError("SELECT secret", {}, OSError("c4n4ry"), connection_invalidated=True)
    monkeypatch.setattr("app.crud.posts.read", failing_with(lost))
    response = await browser.get("/posts/1", headers={"Origin": ORIGIN})
    problem(response, 503, "service_unavailable")
    assert int(response.headers["retry-after"]) > 0
    assert response.headers["access-control-allow-origin"] == ORIGIN
    assert "c4n4ry" not in response.text
    (record,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert record.name == "app.request"
    assert record.exc_info is None


# --- Language and request id -----------------------------------------------------------------

ENGLISH, SPANISH = (i18n.text(locale, "errors", "not_found", "title") for locale in i18n.LOCALES)


ASKED: list[tuple[str | None, str]] = [
    (None, ENGLISH),
    ("es", SPANISH),
    ("es-AR", SPANISH),
    ("ES", SPANISH),
    ("en", ENGLISH),
    ("en, es", ENGLISH),
    ("es, en", SPANISH),
    ("en;q=0.2, es;q=0.9", SPANISH),
    ("es;q=0.2, en-GB;q=0.9", ENGLISH),
    ("fr, de;q=0.9, es;q=0.1", SPANISH),
    ("fr", ENGLISH),
    ("*", ENGLISH),
    ("es;q=0", ENGLISH),
    ("es;q=nan, es;q=2, es;q=-1", ENGLISH),
    (";;q=,,=;es", ENGLISH),
    ("x" * 5_000 + ",es", ENGLISH),
]


async def test_errors_speak_the_language_asked_for(client: Client) -> None:
    """A51: what is garbled is passed over; the code is the same in every language."""
    for header, title in ASKED:
        headers = {} if header is None else {"Accept-Language": header}
        body = (await client.get("/posts/1", headers=headers)).json()
        assert (body["title"], body["code"]) == (title, "not_found"), header


async def test_field_errors_speak_the_language_asked_for(client: Client) -> None:
    """A51: the type stays, the message changes, with its numbers."""
    body = {"email": "x", "name": "A", "password": "short"}
    said = {}
    for locale in i18n.LOCALES:
        headers = {"Accept-Language": locale}
        errors = (await client.post("/auth/register", body, headers=headers)).json()["errors"]
        said[locale] = {(error["field"], error["type"]): error["message"] for error in errors}
    assert set(said["en"]) == {("email", "email_invalid"), ("name", "string_too_short")}
    assert set(said["es"]) == set(said["en"])
    assert not set(said["en"].values()) & set(said["es"].values())
    assert "2" in said["es"]["name", "string_too_short"]


async def test_a_sane_request_id_is_kept(client: Client) -> None:
    for given in ("a1b2c3d4", "trace-0123.4567_89", "x" * 64):
        response = await client.get("/posts/1", headers={"X-Request-ID": given})
        assert response.headers["x-request-id"] == given
        assert problem(response, 404, "not_found")["request_id"] == given


async def test_a_strange_request_id_is_replaced(client: Client) -> None:
    found = set()
    strange = ("", "short", "x" * 65, "with space", 'a"b<c>d=1', "a,b;c/d:e", "c" * 9 + "\t")
    for given in strange:
        response = await client.get("/health", headers={"X-Request-ID": given})
        assert re.fullmatch(r"[0-9a-f]{32}", response.headers["x-request-id"])
        found.add(response.headers["x-request-id"])
    assert len(found) == len(strange), "one for each request"


async def test_a_body_in_utf_16_is_refused(client: Client) -> None:
    """RFC 8259 §8.1: JSON is UTF-8; the parser would take UTF-16 and UTF-32 as well."""
    body = '{"email": "ana@example.com"}'.encode("utf-16-le")
    headers = {"Content-Type": "application/json"}
    response = await client.request("POST", "/auth/register", content=body, headers=headers)
    assert (response.status_code, response.json()["code"]) == (400, "bad_request")
