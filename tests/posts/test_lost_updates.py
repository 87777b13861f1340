"""Concurrent edits with ETags: no edit is lost (A7)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI

from tests.conftest import wipe
from tests.support.client import Client, Person
from tests.support.concurrency import patient_app, statuses
from tests.support.people import new_user

pytestmark = pytest.mark.long

WRITERS, EDITS = 8, 50
FIELDS = {"users": "name", "roles": "description", "posts": "title"}


@pytest.fixture
async def app(database_url: str, tmp_path: Path) -> AsyncIterator[FastAPI]:
    """Takes the place of the common one, for `client` and all that is built on it."""
    async with patient_app(database_url, tmp_path) as patient:
        yield patient
        await wipe(patient.state.database)


async def something(admin: Person, resource: str) -> str:
    """The path of a new one."""
    bodies: dict[str, dict[str, Any]] = {
        "users": {"email": "edited@example.com", "name": "Start"},
        "roles": {"name": "edited"},
        "posts": {"title": "Start", "content": ""},
    }
    created = await admin.post(f"/{resource}", bodies[resource])
    location: str = created.headers["location"]
    return location


@pytest.mark.parametrize("resource", FIELDS)
async def test_no_edit_with_an_etag_is_lost(client: Client, resource: str) -> None:
    """A7: every 200 follows upon exactly one other; everything else is a 412."""
    admin = await new_user(client, ["admin"])
    path, field = await something(admin, resource), FIELDS[resource]
    start = (await admin.get(path)).headers["etag"]
    followed: dict[str, tuple[str, str]] = {}
    answered = list[httpx2.Response]()

    async def edit_again_and_again(writer: int) -> None:
        tag = start
        for number in range(EDITS):
            text = f"Client {writer} edit {number}"
            response = await admin.patch(path, {field: text}, headers={"If-Match": tag})
            answered.append(response)
            if response.is_success:
                assert response.json()[field] == text
                assert tag not in followed, "two edits of the same version"
                followed[tag] = (response.headers["etag"], text)
            current = response if response.is_success else await admin.get(path)
            tag = current.headers["etag"]

    await asyncio.gather(*map(edit_again_and_again, range(WRITERS)))
    counted = statuses(answered)
    assert set(counted) == {200, 412}, "some edits won, some really met another"
    assert counted.total() == WRITERS * EDITS
    tag, text, length = start, "", 0
    while tag in followed:
        (tag, text), length = followed[tag], length + 1
    found = await admin.get(path)
    assert length == counted[200], "one chain from the first version to the last"
    assert (found.headers["etag"], found.json()[field]) == (tag, text)
    if resource == "posts":
        assert found.json()["version"] == 1 + counted[200]
