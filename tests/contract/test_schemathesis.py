"""Requests that schemathesis makes up from the OpenAPI document, as an admin, on SQLite.

Everything is derived from the document and from a fixed seed: the same requests every time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from fastapi import FastAPI
from hypothesis import HealthCheck, given, settings
from schemathesis import APIOperation, BaseSchema, GenerationMode
from schemathesis.core.result import Ok
from schemathesis.python import asgi
from schemathesis.specs.openapi.checks import positive_data_acceptance

from app.core.security import Passwords
from app.crud import users
from app.main import close_app, create_app
from tests.conftest import CHEAP, make_settings, migrate
from tests.support.client import API, PASSWORD

pytestmark = pytest.mark.long

Operation = APIOperation[Any, Any, Any, Any]
EMAIL = "admin@example.com"
# Ids of rows are reduced to this range: some exist, some do not.
ROWS = 6
# Left out: that whatever fits the schema is accepted. Passwords have rules and cursors have
# signatures that no JSON schema can tell.
EXCLUDED: list[schemathesis.CheckFunction] = [positive_data_acceptance]
# What refuses wrong input: schemathesis does not think of 412 and 413, nor of a login without a
# password.
REFUSALS = [400, 401, 403, 404, 409, 412, 413, 422]
# Invented credentials, and the end of a session that may be the caller's own.
MAY_BE_REFUSED = {f"{API}/auth/{path}" for path in ("login", "refresh", "sessions/{session_id}")}
CONFIG = {"checks": {"negative_data_rejection": {"expected-statuses": REFUSALS}}}


class Served:
    """The app without its lifespan: no dispatcher, and the logs stay as pytest has them.

    schemathesis runs it in a thread with an event loop of its own, so the connections are
    closed there too.
    """

    def __init__(self, app: FastAPI) -> None:
        self.app = app

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] != "lifespan":
            await self.app(scope, receive, send)
            return
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await close_app(self.app)
        await send({"type": "lifespan.shutdown.complete"})


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """An app on a database of its own, with an admin, who can neither go nor be disabled."""
    directory: Path = tmp_path_factory.mktemp("schemathesis")
    url = f"sqlite+aiosqlite:///{directory}/test.db"
    migrate(url, directory)
    app = create_app(make_settings(url, directory), passwords=Passwords(CHEAP))
    asyncio.run(_add_admin(app))
    yield Served(app)
    asgi.shutdown_lifespans()


async def _add_admin(app: FastAPI) -> None:
    password_hash = await app.state.passwords.hash(PASSWORD)
    async with app.state.database.begin() as session:
        await users.create_admin(session, email=EMAIL, name="Root", password_hash=password_hash)
    await close_app(app)


@pytest.fixture(scope="module")
def api(served: Served) -> BaseSchema:
    """What schemathesis makes requests from; some rows to meet, whose ids are the lowest."""
    headers = log_in(served)
    with asgi.get_client(served) as http:
        for number in range(3):
            post = {"title": f"Post {number}", "content": "", "tags": ["tag"]}
            http.post(f"{API}/posts", json=post, headers=headers)
            user = {"email": f"user{number}@example.com", "name": "Ana", "password": PASSWORD}
            http.post(f"{API}/auth/register", json=user)
    config = schemathesis.Config.from_dict(CONFIG)
    return schemathesis.openapi.from_asgi("/openapi.json", served, config=config)


def log_in(served: Served) -> dict[str, str]:
    with asgi.get_client(served) as http:
        form = {"username": EMAIL, "password": PASSWORD}
        response = http.post(f"{API}/auth/login", data=form)
    return {"Authorization": f"Bearer {response.json()['access_token']}"}


@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
def test_the_app_keeps_to_its_document(
    api: BaseSchema, served: Served, mode: GenerationMode, subtests: pytest.Subtests
) -> None:
    """A38: a bounded round; no 5xx, no undeclared status, type, header or body."""
    statuses: set[int] = set()
    for operation in operations(api, mode):
        with subtests.test(operation.label):
            # Anew for each, as one of them is the logout.
            statuses |= send_some(operation, mode, headers=log_in(served))
    wanted = {200, 201, 202, 204, 404, 409} if mode is GenerationMode.POSITIVE else {400, 422}
    assert statuses >= wanted, "rows were met, and rules"


def operations(api: BaseSchema, mode: GenerationMode) -> Iterator[Operation]:
    """All of them; those that take no input cannot be given a wrong one."""
    for result in api.get_all_operations():
        assert isinstance(result, Ok), "a part of the document that makes no sense"
        operation = result.ok()
        parts = (operation.path_parameters, operation.query, operation.body)
        if mode is GenerationMode.POSITIVE or any(len(part) for part in parts):
            yield operation


def send_some(operation: Operation, mode: GenerationMode, *, headers: dict[str, str]) -> set[int]:
    """Send requests until hypothesis has seen enough; the statuses of the responses."""
    statuses = set()

    @given(case=operation.as_strategy(generation_mode=mode))
    @settings(
        max_examples=10,
        deadline=None,
        derandomize=True,
        database=None,
        # The speed of generating inputs says nothing of the app: some patterns are long.
        suppress_health_check=[HealthCheck.too_slow],
    )
    def send(case: schemathesis.Case[Any]) -> None:
        if mode is GenerationMode.POSITIVE:
            for name, number in case.path_parameters.items():
                case.path_parameters[name] = 1 + number % ROWS
        response = case.call_and_validate(headers=headers, excluded_checks=EXCLUDED)
        assert response.status_code != 401 or operation.path in MAY_BE_REFUSED
        statuses.add(response.status_code)

    send()
    return statuses
