"""Metrics of mails, of the outbox and of the database's connections."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from email.message import EmailMessage
from pathlib import Path

import pytest
from fastapi import FastAPI
from sqlalchemy.engine import make_url

from app.crud.outbox import Failure
from app.models.outbox import Mail, MailState
from app.tasks.mail import NotSent
from tests.support import faults
from tests.support.apps import client_of
from tests.support.client import Client
from tests.support.figures import Figures, look, metered
from tests.support.mails import put
from tests.support.openapi import Contract
from tests.support.proxy import proxy_for

on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
on_servers = pytest.mark.parametrize("database_url", ["mariadb", "postgresql"], indirect=True)
# A look may take a second; a request ten.
SOON_SECONDS = 6.0


@pytest.fixture
async def watched(client: Client, tmp_path: Path) -> AsyncIterator[Client]:
    """An app that counts, with an empty database."""
    async with metered(client, tmp_path) as found:
        yield found


# --- Mails ---------------------------------------------------------------------------------------


class _Mailer:
    """Raise or return the next of the given answers for each mail."""

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
    watched.app.state.telemetry.watch(watched.database, watched.app.state.query_runner)
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
