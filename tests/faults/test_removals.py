"""A removal that was acknowledged stays, however often the person repeats what would undo it."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest
from fastapi import FastAPI
from sqlalchemy import select

from app.core.permissions import ADMIN_ROLE, Permission
from app.models.base import INCLUDE_DELETED
from app.models.roles import Role, RolePermission
from app.models.users import User, UserRole
from tests.conftest import wipe
from tests.faults.report import Report
from tests.support.apps import client_of
from tests.support.client import Client, Person
from tests.support.concurrency import patient_app
from tests.support.people import granting, new_users

pytestmark = pytest.mark.faults

_REPEATS = 4


@dataclass
class Round:
    """One victim, who can undo what is done to them; an admin; and their own role's id."""

    victim: Person
    admin: Person
    role_id: int

    async def remove(self, how: str) -> httpx2.Response:
        user, role = f"/users/{self.victim.id}", f"/roles/{self.role_id}"
        match how:
            case "demote":
                return await self.admin.delete(f"{user}{role}")
            case "disable":
                return await self.admin.patch(user, {"is_active": False})
            case "delete":
                return await self.admin.delete(user)
            case "empty the role":
                return await self.admin.patch(role, {"permissions": []})
        return await self.admin.delete(role)

    async def undo(self, how: str) -> httpx2.Response:
        user, role = f"/users/{self.victim.id}", f"/roles/{self.role_id}"
        match how:
            case "demote" | "delete the role":
                return await self.victim.put(f"{user}{role}")
            case "disable":
                return await self.victim.patch(user, {"is_active": True})
            case "delete":
                return await self.victim.post(f"{user}/restore")
        return await self.victim.patch(role, {"permissions": [*_GRANTED]})

    async def keep_undoing(self, how: str) -> list[httpx2.Response]:
        return [await self.undo(how) for _ in range(3)]

    async def is_removed(self, how: str) -> bool:
        """Whether what was removed is still so, behind the API."""
        async with self.admin.database.begin(readonly=True) as session:
            options = {INCLUDE_DELETED: True}
            if how in {"disable", "delete"}:
                of_user = select(User.is_active, User.deleted_at).where(User.id == self.victim.id)
                found = (await session.execute(of_user, execution_options=options)).one()
                return not found.is_active if how == "disable" else found.deleted_at is not None
            table = RolePermission if how == "empty the role" else UserRole
            rows = await session.scalars(select(table.role_id).where(table.role_id == self.role_id))
            return not rows.all()


_GRANTED = (
    *(Permission.users_read, Permission.users_write, Permission.roles_assign),
    *(Permission.roles_write, Permission.posts_write),
)
WAYS = ("demote", "disable", "delete", "empty the role", "delete the role")


@pytest.fixture
async def app(database_url: str, tmp_path: Path) -> AsyncIterator[FastAPI]:
    """Takes the place of the common one, for `client` and all that is built on it."""
    async with patient_app(database_url, tmp_path) as patient:
        yield patient
        await wipe(patient.state.database)


@pytest.fixture(params=[1, 2], ids=["one process", "two processes"])
async def second(
    request: pytest.FixtureRequest, client: Client, tmp_path: Path
) -> AsyncIterator[Client]:
    """The process that the victim talks to: the admin's, or another with a memory of its own."""
    if request.param == 1:
        yield client
        return
    async with client_of(client, tmp_path / "second", request_timeout_seconds=60) as other:
        yield other


def at(person: Person, process: Client) -> Person:
    """The same person, as a caller of another process."""
    of_process = process.http, process.app, process.contract
    return Person(*of_process, person.headers, person.account, person.token)


@pytest.mark.parametrize("how", WAYS)
async def test_an_acknowledged_removal_stays(
    client: Client,
    second: Client,
    how: str,
    whole: bool,
    report: Report,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A65: the person repeats what would undo it all the while, before, during and after."""
    rounds, undone, refused = 50 if whole else 6, 0, 0
    with caplog.at_level(logging.INFO, logger="app.request"):
        for number in range(rounds):
            victim, admin = await new_users(client, [granting(*_GRANTED)], [ADMIN_ROLE])
            role_id = (await admin.get(f"/users/{victim.id}/roles")).json()["items"][0]["id"]
            game = Round(at(victim, second), admin, role_id)
            assert (await game.undo(how)).status_code in {200, 204}, "it would undo it"
            undoing = asyncio.gather(*(game.keep_undoing(how) for _ in range(_REPEATS)))
            removal, answers = await game.remove(how), await undoing
            assert removal.is_success, removal.text
            late = [await game.undo(how) for _ in range(2)]
            statuses = [answer.status_code for answer in [*itertools.chain(*answers), *late]]
            assert {*statuses} <= {200, 204, 401, 403, 404}, statuses
            assert {answer.status_code for answer in late} <= {401, 403, 404}
            refused += sum(status >= 400 for status in statuses)
            undone += not await game.is_removed(how)
            report.progress(f"{number + 1}/{rounds}, {undone} undone")
    deadlocks = sum(record.message == "transaction retried" for record in caplog.records)
    report.row(
        database=client.database.dialect,
        faults=rounds,
        requests=rounds * (3 * _REPEATS + 3),
        acknowledged=rounds,
        lost=undone,
    )
    assert undone == 0
    assert refused >= 2 * rounds, "the race was one"
    assert deadlocks == 0, "one order of locks"


@pytest.mark.parametrize("way", ["demote", "disable", "delete"])
async def test_of_two_admins_who_remove_each_other_one_does_not(
    client: Client, second: Client, way: str, whole: bool, report: Report
) -> None:
    """A23, A65: what the loser asked for is not done any more once they are removed."""
    rounds, both = 50 if whole else 6, 0
    async with client.database.begin(readonly=True) as session:
        role_id = await session.scalar(select(Role.id).where(Role.name == ADMIN_ROLE))
    assert role_id is not None
    for number in range(rounds):
        one, other = await new_users(client, [ADMIN_ROLE], [ADMIN_ROLE])
        games = [Round(other, one, role_id), Round(one, at(other, second), role_id)]
        answers = await asyncio.gather(*(game.remove(way) for game in games))
        statuses = sorted(answer.status_code for answer in answers)
        assert {*statuses} <= {200, 204, 401, 403}, statuses
        both += statuses[1] < 300
        report.progress(f"{number + 1}/{rounds}, {both} lost")
    report.row(database=client.database.dialect, faults=rounds, requests=2 * rounds, lost=both)
    assert both == 0
