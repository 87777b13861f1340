"""The examples of the OpenAPI document are what the app answers for the data of `scripts/seed`."""

from __future__ import annotations

import asyncio
import inspect
import shutil
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI

from app.cli import commands, seeding
from app.config.checks import FIRST_ADMIN_NAME
from app.core.security import Passwords
from app.crud import users
from app.main import close_app, create_app
from app.web import openapi_examples
from tests.conftest import CHEAP, make_settings, migrate
from tests.support.apps import app_of
from tests.support.client import Client
from tests.support.document import documented

OPERATIONS = documented().operations
# Tokens and keys differ each time; mails may have been delivered meanwhile.
NOT_COMPARED = {"refresh", "list_keys", "list_mails", "retry_mail"}
# What has to be done before, for there to be what is shown.
BEFORE = {
    "restore_post": "delete_post",
    "restore_user": "delete_user",
    "update_role": "create_role",
}
# Another value each time: only whether there is one is compared.
VARYING = {"access_token", "refresh_token", "next_cursor", "user_agent", "request_id"}


def _example(name: str) -> Any:
    """The example of the answer of an operation; None for one without a body."""
    for status, response in OPERATIONS[name][2]["responses"].items():
        if status < "300" and "content" in response:
            return response["content"]["application/json"]["example"]
    return None


def _is_stated(name: str) -> bool:
    """Whether the example of an answer is one of those that are written out, or a page of it."""
    example = _example(name) or {}
    shown = example.get("items", [example])
    return any(set(shown[0]) == set(answer) for answer in openapi_examples.ANSWERS.values())


COMPARED = [name for name in OPERATIONS if _is_stated(name) and name not in NOT_COMPARED]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with the first admin and the demo data, which every test copies."""
    path = tmp_path_factory.mktemp("demo") / "demo.db"
    url = f"sqlite+aiosqlite:///{path}"
    migrate(url, path.parent)
    app = create_app(make_settings(url, path.parent), passwords=Passwords(CHEAP))
    asyncio.run(_fill(app))
    return path


async def _fill(app: FastAPI) -> None:
    login = _request("login")["data"]
    hashed = await app.state.passwords.hash(login["password"])
    admin = {"email": login["username"], "name": FIRST_ADMIN_NAME, "password_hash": hashed}
    await app.state.database.run(partial(users.create_admin, **admin))
    parameters = inspect.signature(commands.seed).parameters.values()
    user_count, post_count = (parameter.default for parameter in parameters)
    await seeding.seed(
        app.state.database, users=user_count, posts=post_count, progress=lambda _: None
    )
    await close_app(app)


@pytest.fixture
async def anonymous(demo: Path, tmp_path: Path) -> AsyncIterator[Client]:
    path = shutil.copy(demo, tmp_path)
    async with app_of(make_settings(f"sqlite+aiosqlite:///{path}", tmp_path)) as app:
        transport = httpx2.ASGITransport(app=app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://testserver") as http:
            yield Client(http, app, documented())


@pytest.mark.parametrize("name", COMPARED)
async def test_the_example_is_what_is_answered(anonymous: Client, name: str) -> None:
    security = OPERATIONS[name][2]["security"]
    client = anonymous if {} in security or not security else await _logged_in(anonymous)
    if name in BEFORE:
        await _send(client, BEFORE[name])
    response = await _send(client, name)
    assert _lasting(response.json()) == _lasting(_example(name))


async def _logged_in(client: Client) -> Client:
    token = (await _send(client, "login")).json()["access_token"]
    headers = {"Authorization": f"Bearer {token}"}
    return Client(client.http, client.app, client.contract, headers)


async def _send(client: Client, name: str) -> httpx2.Response:
    """Send the request that the examples of an operation make."""
    method, path, operation = OPERATIONS[name]
    parameters = operation.get("parameters", ())
    ids = {each["name"]: each["example"] for each in parameters if each["in"] == "path"}
    response = await client.request(method.upper(), path.format(**ids), **_request(name))
    assert response.is_success, response.text
    return response


def _request(name: str) -> dict[str, Any]:
    """The body of a request, or how many items of a listing it asks for."""
    example = _example(name) or {}
    if "items" in example:
        return {"params": {"page_size": len(example["items"])}}
    body = OPERATIONS[name][2].get("requestBody")
    if body is None:
        return {}
    ((media_type, content),) = body["content"].items()
    return {"json" if media_type == "application/json" else "data": content["example"]}


def _lasting(shown: Any) -> Any:
    """What is the same whenever it is asked for."""
    if isinstance(shown, list):
        return [_lasting(each) for each in shown]
    if not isinstance(shown, dict):
        return shown
    return {
        name: value is not None if _varies(name) else _lasting(value)
        for name, value in shown.items()
    }


def _varies(name: str) -> bool:
    return name in VARYING or name.endswith("_at")
