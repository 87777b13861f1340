"""What operators see of a running app, and what nobody sees."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from email.message import EmailMessage
from pathlib import Path

import pytest
from fastapi import FastAPI
from sqlalchemy.engine import make_url

from app.crud import idempotency
from app.crud.outbox import Failure
from app.models.outbox import Mail, MailState
from app.quotas import Door
from app.tasks.mail import NotSent
from tests.support import faults
from tests.support.apps import client_of
from tests.support.client import PASSWORD, Client
from tests.support.figures import Figures, look, metered
from tests.support.gates import WRONG, gated
from tests.support.mails import put
from tests.support.openapi import Contract
from tests.support.process import environment
from tests.support.proxy import proxy_for

on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
on_servers = pytest.mark.parametrize("database_url", ["mariadb", "postgresql"], indirect=True)
REQUESTS = "http_server_request_duration_seconds_count"
ATTEMPTS = "cimiento_attempts_total"
SOON_SECONDS = 3.0


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


# --- Doors ---------------------------------------------------------------------------------------


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
async def test_an_address_that_is_taken_is_an_invalid_try(watched: Client) -> None:
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

    monkeypatch.setattr(idempotency, "find_or_forget", not_yet)
    body = {"email": "ana@example.com", "name": "Ana", "password": PASSWORD}
    for _ in range(2):
        answer = await watched.post("/auth/register", body, headers={"Idempotency-Key": "k"})
        assert answer.status_code == 201
    assert answer.headers["Idempotency-Replayed"] == "true"
    found = await look(watched)
    assert found.of(ATTEMPTS, door="register", result="failed") == 0
    assert found.of(ATTEMPTS, door="register", result="ok") == 2


@on_sqlite
async def test_a_try_that_failed_on_our_side_is_told_apart(watched: Client) -> None:
    email = (await watched.register())["email"]
    with faults.failing_writes(watched.database, lambda: RuntimeError("a defect"), times=1):
        form = {"username": email, "password": PASSWORD}
        assert (await watched.request("POST", "/auth/login", data=form)).status_code == 500
    assert (await look(watched)).of(ATTEMPTS, door="login", result="failed") == 1


@on_sqlite
async def test_limits_that_were_met_are_counted(client: Client, tmp_path: Path) -> None:
    async with gated(client, tmp_path, metrics_enabled=True) as gate:
        email = (await gate.register())["email"]
        form = {"username": email, "password": WRONG}
        statuses = [
            (await gate.request("POST", "/auth/login", data=form)).status_code for _ in range(12)
        ]
        assert statuses == [401] * 10 + [429] * 2
        found = await look(gate)
        assert found.of(ATTEMPTS, door="login", result="refused") == 2
        assert found.of("cimiento_limit_hits_total", door="login") == 2
        assert found.of("cimiento_limit_hits_total", door="login", limit="account") == 2


@on_sqlite
async def test_counters_are_there_before_anything_happens(watched: Client) -> None:
    found = await look(watched)
    assert found.values(ATTEMPTS, "door") == set(Door)
    assert found.values("cimiento_limit_hits_total", "door") == set(Door)
    for name in (ATTEMPTS, "cimiento_limit_hits_total", "cimiento_mails_total"):
        assert found.of(name) == 0
    results = {"sent", "unreachable", "deferred", "refused", "failed"}
    assert found.values("cimiento_mails_total", "result") == results


# --- Mails ---------------------------------------------------------------------------------------


class _Mailer:
    """Answers each mail as told."""

    def __init__(self, *answers: Exception | None) -> None:
        self._answers = [*answers]

    async def send(self, _: EmailMessage) -> None:
        if answer := self._answers.pop(0):
            raise answer


@on_sqlite
async def test_mails_are_counted_by_what_became_of_them(watched: Client) -> None:
    answers = (None, *(NotSent(each, "no") for each in Failure), RuntimeError("a defect"), None)
    mailer = watched.app.state.telemetry.counting(_Mailer(*answers))
    for answer in answers:
        if answer is None:
            await mailer.send(EmailMessage())
        else:
            with pytest.raises(type(answer)):
                await mailer.send(EmailMessage())
    found = await look(watched)
    counted = {
        result: found.of("cimiento_mails_total", result=result)
        for result in found.values("cimiento_mails_total", "result")
    }
    assert counted == {"sent": 2, "unreachable": 1, "deferred": 1, "refused": 1, "failed": 1}


@on_sqlite
async def test_the_mails_of_the_app_are_among_them(watched: Client) -> None:
    await watched.register()
    async with watched.database.begin(readonly=True) as session:
        (mail_id,) = await session.scalars(Mail.__table__.select().with_only_columns(Mail.id))
    await watched.app.state.dispatcher.deliver(mail_id)
    assert (await look(watched)).of("cimiento_mails_total", result="sent") == 1


async def test_the_outbox_is_counted_by_state_with_its_lag(watched: Client) -> None:
    found = await look(watched)
    assert outbox(found) == {"pending": 0, "sending": 0, "dead": 0}
    assert found.of("cimiento_outbox_lag_seconds") == 0
    for state, due in [
        (MailState.pending, -100),
        (MailState.pending, 500),
        (MailState.sending, 60),
        (MailState.dead, -9_000),
        (MailState.sent, -9_000),
    ]:
        await put(watched.database, state, due=due)
    assert outbox(await look(watched))["pending"] == 0, "remembered for a while"
    watched.app.state.telemetry.watch(watched.database, watched.app.state.reader)
    found = await look(watched)
    assert outbox(found) == {"pending": 2, "sending": 1, "dead": 1}
    assert 100 <= found.of("cimiento_outbox_lag_seconds") < 200


def outbox(found: Figures) -> dict[str, float]:
    name = "cimiento_outbox_mails"
    return {state: found.of(name, state=state) for state in found.values(name, "state")}


@on_servers
async def test_a_frozen_database_costs_its_own_figures_alone(
    database_url: str, contract: Contract, tmp_path: Path
) -> None:
    async with (
        proxy_for(make_url(database_url)) as proxy,
        faults.served_client(proxy.url, tmp_path, contract, metrics_enabled=True) as client,
    ):
        proxy.freeze()
        started = time.perf_counter()
        found = await look(client)
        assert time.perf_counter() - started < SOON_SECONDS
        assert proxy.held_back
        assert not [name for name in found.names() if name.startswith("cimiento_outbox")]
        assert found.of("cimiento_database_connections_max", pool="write") == 10
        await look(client)
        assert proxy.accepted <= 3, "it is not asked again at once"
        proxy.thaw()
        await client.app.state.telemetry.close()


async def test_a_database_without_tables_has_no_backlog(contract: Contract, tmp_path: Path) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path}/empty.db"
    async with faults.served_client(url, tmp_path, contract, metrics_enabled=True) as client:
        found = await look(client)
        assert not [name for name in found.names() if name.startswith("cimiento_outbox")]
        assert found.of("cimiento_database_connections_max") == 10


async def test_pools_tell_how_full_they_are(client: Client, tmp_path: Path) -> None:
    async with metered(client, tmp_path, database_pool_size=3) as found:
        async with found.database.engine.connect():
            figures = await look(found)
        name = "cimiento_database_connections"
        assert figures.of(name, pool="write", state="used") == 1
        assert figures.of(f"{name}_max", pool="write") == 3
        pools = {"write"} if found.database.dialect == "sqlite" else {"write", "read"}
        assert figures.values(name, "pool") == pools
        after = await look(found)
        assert after.of(name, pool="write", state="used") == 0
        assert after.of(name, pool="write", state="idle") == 1


@on_sqlite
async def test_an_app_that_stops_measures_no_more(client: Client, tmp_path: Path) -> None:
    async with client_of(client, tmp_path, metrics_enabled=True) as other:
        app: FastAPI = other.app
        async with app.router.lifespan_context(app):
            assert (await look(other)).of("cimiento_database_connections_max") == 10
        assert "cimiento" not in (await other.http.get("/metrics")).text
