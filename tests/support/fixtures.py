"""Fixtures of more than one test file; `conftest.py` holds those that nearly all ask for."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI

from app.config import Settings
from app.crud import account_recovery
from app.db.engine import Database, connect
from app.tasks.dispatcher import Dispatcher
from app.tasks.mail import SmtpMailer
from tests.conftest import make_settings
from tests.support.client import Client, Person
from tests.support.commands import SetEnv, command_settings
from tests.support.delivery import delivering_to
from tests.support.diagnosis import OwnDatabase, database_on_server
from tests.support.logs import Output, captured_logging
from tests.support.people import new_user
from tests.support.settings import forget_settings
from tests.support.smtp import Sink, running_sink
from tests.support.trail import Since


@pytest.fixture
def settings(app: FastAPI) -> Settings:
    """The settings of the app."""
    found: Settings = app.state.settings
    return found


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers to who forgot their password, without the wait for a beat that hides who they are."""
    monkeypatch.setattr(account_recovery, "BEAT_SECONDS", 0.001)


@pytest.fixture
def no_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An empty folder, and no setting in the environment."""
    forget_settings(monkeypatch, tmp_path)


@pytest.fixture
def set_env(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[SetEnv]:
    """Sets settings for the commands; starts from none at all, in an empty folder."""
    with command_settings(monkeypatch, tmp_path) as set_all:
        yield set_all


@pytest.fixture
def own_database() -> OwnDatabase:
    """Creates databases on the tests' servers, for as long as they are looked at."""
    return database_on_server


@pytest.fixture
def same_database(set_env: SetEnv, database_url: str, app: FastAPI) -> None:  # noqa: ARG001 wipes
    """The commands and the API look at one database, which is emptied afterwards."""
    set_env(database_url=database_url)


@pytest.fixture
def logs() -> Iterator[Output]:
    """The process's logging as in production, but at its most talkative."""
    with captured_logging() as output:
        yield output


@pytest.fixture
async def other_process(database_url: str, tmp_path: Path) -> AsyncIterator[Database]:
    """The same database, as another process has it."""
    other = connect(make_settings(database_url, tmp_path))
    yield other
    await other.dispose()


@pytest.fixture
async def sink() -> AsyncIterator[Sink]:
    """A mail server."""
    async with running_sink() as found:
        yield found


@pytest.fixture
def smtp(sink: Sink, database_url: str, tmp_path: Path) -> Settings:
    """Settings with the sink as the mail server."""
    return delivering_to(sink, database_url, tmp_path)


@pytest.fixture
def dispatcher(database: Database, smtp: Settings) -> Dispatcher:
    """A dispatcher that has not been started."""
    return Dispatcher(database, SmtpMailer(smtp), smtp)


@pytest.fixture
def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
    return port


@pytest.fixture
def frozen_port() -> Iterator[int]:
    """Takes connections, and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        yield port


@pytest.fixture
async def admin(client: Client) -> Person:
    """An administrator, written past the API: nothing of it is in the audit trail."""
    return await new_user(client, roles=["admin", "user"])


@pytest.fixture
async def since(admin: Person) -> Since:
    """The audit trail from now on."""
    return await Since.now(admin)
