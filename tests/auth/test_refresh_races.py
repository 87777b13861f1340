"""Concurrent refreshes of one session, and changes that happen meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from datetime import timedelta
from pathlib import Path

import httpx2
import pytest
from fastapi import FastAPI

from tests.conftest import wipe
from tests.support.client import Client
from tests.support.concurrency import at_once, patient_app, statuses
from tests.support.refreshing import (
    alarms,
    attempt,
    opens,
    pass_time,
    refused,
    renewed,
    the_session,
    unused,
)

pytestmark = pytest.mark.long


@pytest.fixture
async def app(database_url: str, tmp_path: Path) -> AsyncIterator[FastAPI]:
    """Takes the place of the common one, for `client` and all that is built on it."""
    async with patient_app(database_url, tmp_path) as patient:
        yield patient
        await wipe(patient.state.database)


async def test_fifty_refreshes_with_one_token_get_one_successor(client: Client) -> None:
    """A26: all of them 200; one session, one token that waits for its use."""
    login = await client.log_in((await client.register())["email"])
    token = login["refresh_token"]
    for _ in range(3):
        responses = await at_once([attempt(client, token) for _ in range(50)])
        assert statuses(responses) == {200: 50}
        (successor,) = {response.json()["refresh_token"] for response in responses}
        assert successor != token
        assert await opens(client, responses[-1].json())
        assert await unused(client) == 1
        assert (await the_session(client)).ended_at is None
        token = successor
    assert await alarms(client) == (0, 0)


async def test_fifty_late_uses_of_a_token_end_the_session_once(client: Client) -> None:
    """A26: none of them 200; one event, one mail."""
    login = await client.log_in((await client.register())["email"])
    successor = await renewed(client, login["refresh_token"])
    await pass_time(client, timedelta(seconds=11))
    responses = await at_once([attempt(client, login["refresh_token"]) for _ in range(50)])
    assert statuses(responses) == {401: 50}
    assert await alarms(client) == (1, 1)
    assert not await opens(client, successor)


@pytest.mark.parametrize("way", ["logout", "disabled", "deleted", "late use"])
async def test_nothing_brings_a_session_back_that_ends_meanwhile(client: Client, way: str) -> None:
    """A24, A26: whichever request comes first, no token of the session works in the end."""
    admin, account = await client.admin(), await client.register()
    login = await client.log_in(account["email"])
    old = login["refresh_token"]
    login = await renewed(client, old)
    await pass_time(client, timedelta(seconds=11))

    def end() -> Awaitable[httpx2.Response]:
        path = f"/users/{account['id']}"
        if way == "logout":
            bearer = {"Authorization": f"Bearer {login['access_token']}"}
            return client.post("/auth/logout", headers=bearer)
        if way == "disabled":
            return admin.patch(path, {"is_active": False})
        return admin.delete(path) if way == "deleted" else attempt(client, old)

    refreshes = [attempt(client, login["refresh_token"]) for _ in range(20)]
    late = [attempt(client, old)] if way in {"disabled", "deleted"} else []
    requests = [*refreshes[:10], end(), *late, *refreshes[10:]]
    responses = await asyncio.gather(*requests)
    assert set(statuses(responses)) <= {200, 204, 401}
    given = [each.json() for each in responses if '"access_token"' in each.text]
    for one in (login, *given):
        assert not await opens(client, one)
        await refused(client, one["refresh_token"])
