"""Metrics of requests and attempts: what operators see, and what is never exported."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from app.crud import idempotency_keys
from app.rate_limits.rules import LimitedAction
from tests.support import faults
from tests.support.client import PASSWORD, Client
from tests.support.figures import look, metered
from tests.support.process import environment
from tests.support.rate_limits import WRONG, rate_limited

on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
REQUESTS = "http_server_request_duration_seconds_count"
ATTEMPTS = "cimiento_attempts_total"


@pytest.fixture
async def watched(client: Client, tmp_path: Path) -> AsyncIterator[Client]:
    """An app that counts, with an empty database."""
    async with metered(client, tmp_path) as found:
        yield found


# --- Off -----------------------------------------------------------------------------------------


@on_sqlite
async def test_without_the_setting_there_is_nothing_to_see(client: Client) -> None:
    response = await client.http.get("/metrics")
    assert response.status_code == 404
    assert response.json()["code"] == "not_found"


def test_without_the_setting_nothing_of_it_is_loaded(tmp_path: Path) -> None:
    work = (
        "import sys; from app.main import create_app; create_app()\n"
        "print([m for m in sys.modules if m.startswith(('opentelemetry.sdk', 'prometheus'))])"
    )
    for switched_on in (False, True):
        done = subprocess.run(
            [sys.executable, "-c", work],
            cwd=tmp_path,
            env=environment(metrics_enabled=switched_on),
            check=True,
            capture_output=True,
            text=True,
        )
        assert (done.stdout.strip() == "[]") is not switched_on


# --- Requests ------------------------------------------------------------------------------------


@on_sqlite
async def test_requests_are_counted_by_the_template_of_their_route(watched: Client) -> None:
    ana = await watched.user()
    post = await ana.write()
    for path in (f"/posts/{post['id']}", "/posts/999999", "/posts/x", "/posts?q=secret"):
        await ana.get(path)
    await watched.http.get("/nowhere/secret")
    await watched.http.get("/errors/not_found")
    found = await look(watched)
    by_route = {"http_route": "/api/v1/posts/{post_id}", "http_request_method": "GET"}
    assert found.of(REQUESTS, **by_route) == 3
    for status in ("200", "404", "422"):
        assert found.of(REQUESTS, **by_route, http_response_status_code=status) == 1
    assert found.of(REQUESTS, http_route="/api/v1/posts", http_request_method="GET") == 1
    assert found.of(REQUESTS, http_route="") == 1
    assert found.of(REQUESTS, http_route="/errors/{code}") == 1
    known = {path for _, path, _ in watched.contract.operations.values()}
    assert found.values(REQUESTS, "http_route") <= known | {"", "/errors/{code}"}
    assert found.of("http_server_active_requests") == 0


@on_sqlite
async def test_strange_methods_have_no_label_of_their_own(watched: Client) -> None:
    for method in ("FOO", "BAR"):
        await watched.http.request(method, "/api/v1/posts")
    found = await look(watched)
    assert found.values(REQUESTS, "http_request_method") == {"_OTHER"}


@on_sqlite
async def test_labels_are_few(watched: Client) -> None:
    """Each one more multiplies the lines, of which a histogram has sixteen."""
    await watched.get("/posts")
    found = await look(watched)
    by_route = {"http_route", "http_request_method", "http_response_status_code"}
    assert found.labels(REQUESTS) == by_route
    assert found.labels("http_server_active_requests") == {"http_request_method"}


@on_sqlite
async def test_all_who_look_at_once_see_everything(watched: Client) -> None:
    await watched.get("/posts")
    looks = await asyncio.gather(*[look(watched) for _ in range(10)])
    assert len({frozenset(found.names()) for found in looks}) == 1
    assert {found.of(REQUESTS) for found in looks} == {1}


@on_sqlite
async def test_monitoring_does_not_count_itself(watched: Client) -> None:
    await watched.get("/health")
    await watched.get("/health/ready")
    await look(watched)
    assert REQUESTS not in (await look(watched)).names()


@on_sqlite
async def test_nothing_of_people_is_shown(watched: Client) -> None:
    ana = await watched.user("Unmistakable", email="unmistakable@example.com")
    await ana.write("Unmistakable")
    headers = {"Host": "unmistakable.example", "X-Request-ID": "unmistakable"}
    await ana.get("/posts?q=unmistakable&unmistakable=1", headers=headers)
    await watched.request("POST", "/auth/login", data={"username": "unmistakable", "password": "x"})
    assert "unmistakable" not in (await look(watched)).text.lower()


@on_sqlite
async def test_prometheus_may_ask_for_its_newer_format(watched: Client) -> None:
    plain = await watched.http.get("/metrics")
    assert plain.headers["content-type"].startswith("text/plain; version=0.0.4")
    newer = {"Accept": "application/openmetrics-text;version=1.0.0,text/plain;q=0.5"}
    found = await watched.http.get("/metrics", headers=newer)
    assert found.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    assert found.text.endswith("# EOF\n")


@on_sqlite
@pytest.mark.parametrize("kind", ["text/plain", "application/openmetrics-text"])
@pytest.mark.parametrize("version", ["x", "abc", "1.x", "", "1..0", "-1", "\xb2", "9" * 5000])
async def test_a_format_nobody_knows_is_answered_in_the_usual_one(
    watched: Client, kind: str, version: str
) -> None:
    for header in (f"{kind};version={version}", f"{kind};version={version};escaping=x"):
        found = await watched.http.get("/metrics", headers={b"Accept": header.encode("latin-1")})
        assert found.status_code == 200, found.text
        assert "# TYPE cimiento_attempts" in found.text


@on_sqlite
async def test_names_are_as_prometheus_has_them(watched: Client) -> None:
    await watched.get("/posts")
    found = await look(watched)
    kinds = dict(line.split()[2:4] for line in found.text.splitlines() if line[:6] == "# TYPE")
    assert all(name.endswith("_total") == (kind == "counter") for name, kind in kinds.items())
    assert not any("_total_total" in name or "_seconds_seconds" in name for name in kinds)
    helped = {line.split()[2] for line in found.text.splitlines() if line[:6] == "# HELP"}
    assert helped == set(kinds)


@on_sqlite
async def test_every_app_counts_for_itself(client: Client, watched: Client, tmp_path: Path) -> None:
    async with metered(client, tmp_path) as other:
        await watched.get("/posts")
        assert (await look(watched)).of(REQUESTS) == 1
        assert (await look(other)).of(REQUESTS) == 0


# --- Limited actions -----------------------------------------------------------------------------


@on_sqlite
async def test_logins_are_counted_by_what_came_of_them(watched: Client) -> None:
    email = (await watched.register())["email"]
    await watched.login(email)
    for form in (
        {"username": email, "password": WRONG},
        {"username": "nobody@example.com", "password": WRONG},
        {"username": email, "password": PASSWORD, "grant_type": "nonsense"},
    ):
        await watched.request("POST", "/auth/login", data=form)
    found = await look(watched)
    counted = {
        result: found.of(ATTEMPTS, door="login", result=result)
        for result in found.values(ATTEMPTS, "result")
    }
    assert counted == {"ok": 1, "wrong": 2, "invalid": 1, "refused": 0, "failed": 0}
    assert found.of(ATTEMPTS, door="register", result="ok") == 1


@on_sqlite
async def test_an_address_that_is_taken_is_an_invalid_attempt(watched: Client) -> None:
    email = (await watched.register())["email"]
    body = {"email": email, "name": "Ana", "password": PASSWORD}
    assert (await watched.post("/auth/register", body)).status_code == 409
    assert (await look(watched)).of(ATTEMPTS, door="register", result="invalid") == 1


@on_sqlite
async def test_a_request_that_was_answered_before_did_not_fail(
    watched: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def not_yet(*_: object) -> None:
        """What the slower of two sees that come at once."""

    monkeypatch.setattr(idempotency_keys, "find_or_delete_expired", not_yet)
    body = {"email": "ana@example.com", "name": "Ana", "password": PASSWORD}
    for _ in range(2):
        answer = await watched.post("/auth/register", body, headers={"Idempotency-Key": "k"})
        assert answer.status_code == 201
    assert answer.headers["Idempotency-Replayed"] == "true"
    found = await look(watched)
    assert found.of(ATTEMPTS, door="register", result="failed") == 0
    assert found.of(ATTEMPTS, door="register", result="ok") == 2


@on_sqlite
async def test_an_attempt_that_failed_on_our_side_is_told_apart(watched: Client) -> None:
    email = (await watched.register())["email"]
    with faults.failing_writes(watched.database, lambda: RuntimeError("a defect"), times=1):
        form = {"username": email, "password": PASSWORD}
        assert (await watched.request("POST", "/auth/login", data=form)).status_code == 500
    assert (await look(watched)).of(ATTEMPTS, door="login", result="failed") == 1


@on_sqlite
async def test_limits_that_were_met_are_counted(client: Client, tmp_path: Path) -> None:
    async with rate_limited(client, tmp_path, metrics_enabled=True) as limited:
        email = (await limited.register())["email"]
        form = {"username": email, "password": WRONG}
        statuses = [
            (await limited.request("POST", "/auth/login", data=form)).status_code for _ in range(12)
        ]
        assert statuses == [401] * 10 + [429] * 2
        found = await look(limited)
        assert found.of(ATTEMPTS, door="login", result="refused") == 2
        assert found.of("cimiento_limit_hits_total", door="login") == 2
        assert found.of("cimiento_limit_hits_total", door="login", limit="account") == 2


@on_sqlite
async def test_counters_are_there_before_anything_happens(watched: Client) -> None:
    found = await look(watched)
    assert found.values(ATTEMPTS, "door") == set(LimitedAction)
    assert found.values("cimiento_limit_hits_total", "door") == set(LimitedAction)
    for name in (ATTEMPTS, "cimiento_limit_hits_total", "cimiento_mails_total"):
        assert found.of(name) == 0
    results = {"sent", "unreachable", "deferred", "refused", "failed"}
    assert found.values("cimiento_mails_total", "result") == results
