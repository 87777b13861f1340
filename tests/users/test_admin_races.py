"""Administrators who remove each other at once: one of them is always left."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest
from fastapi import FastAPI
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.permissions import ADMIN_ROLE, GRANTING, Caller, Permission
from app.crud import admins as admins_module
from app.crud import authorization
from app.crud.sessions import TokenAuthenticator
from app.db.engine import Database
from app.db.transactions import Transaction
from app.models.roles import Role
from app.models.users import User, UserRole
from tests.conftest import wipe
from tests.support.client import PASSWORD, Client, Person
from tests.support.concurrency import at_once, count, patient_app, statuses

Way = Callable[[Person, int, int], Awaitable[httpx2.Response]]


def demote(actor: Person, target: int, role: int) -> Awaitable[httpx2.Response]:
    return actor.delete(f"/users/{target}/roles/{role}")


def disable(actor: Person, target: int, _: int) -> Awaitable[httpx2.Response]:
    return actor.patch(f"/users/{target}", {"is_active": False})


def delete(actor: Person, target: int, _: int) -> Awaitable[httpx2.Response]:
    return actor.delete(f"/users/{target}")


def leave(actor: Person, _target: int, _: int) -> Awaitable[httpx2.Response]:
    return actor.delete("/users/me", {"current_password": PASSWORD})


WAYS: list[Way] = [demote, disable, delete, leave]


@pytest.fixture
async def app(database_url: str, tmp_path: Path) -> AsyncIterator[FastAPI]:
    """Takes the place of the common one, for `client` and all that is built on it."""
    async with patient_app(database_url, tmp_path) as patient:
        yield patient
        await wipe(patient.state.database)


@contextmanager
def both_identified_first() -> Iterator[None]:
    """Hold two requests until both callers were identified: only what their transactions find can
    stop the second one then."""
    barrier, identify, seen = asyncio.Barrier(2), TokenAuthenticator.authenticate, set[int]()

    async def identify_together(self: TokenAuthenticator, token: str) -> Caller:
        caller = await identify(self, token)
        # A request that is run again after a deadlock has nobody left to wait for.
        if caller.session_id not in seen:
            seen.add(caller.session_id)
            await barrier.wait()
        return caller

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TokenAuthenticator, "authenticate", identify_together)
        yield
    assert len(seen) == 2, "both were held"


async def two_admins(client: Client) -> tuple[Person, Person, int]:
    """The only admins there are, and the id of their role."""
    await wipe(client.database)
    one, other = await client.admin("One"), await client.admin("Other")
    async with client.database.begin(readonly=True) as session:
        role = await session.scalar(select(Role.id).where(Role.name == ADMIN_ROLE))
    assert role is not None
    return one, other, role


def lost(responses: list[httpx2.Response]) -> list[str]:
    return [response.json()["code"] for response in responses if not response.is_success]


@pytest.mark.long
@pytest.mark.parametrize("first", WAYS[:3])
async def test_two_admins_cannot_remove_each_other(client: Client, first: Way) -> None:
    """A23, A65: one of them wins; the other is refused for what was done to them before their
    own transaction began, though their request was let in before."""
    for second in WAYS[:3]:
        one, other, role = await two_admins(client)
        with both_identified_first():
            responses = await at_once([first(one, other.id, role), second(other, one.id, role)])
        winner = first if responses[0].is_success else second
        refusal = "insufficient_scope" if winner is demote else "invalid_token"
        assert lost(responses) == [refusal], statuses(responses)
        assert await admins(client.database) == 1


@pytest.mark.long
@pytest.mark.parametrize("first", WAYS)
async def test_two_admins_cannot_both_leave(client: Client, first: Way) -> None:
    """A23: the second one to go is answered `last_admin`."""
    for second in WAYS[WAYS.index(first) :]:
        one, other, role = await two_admins(client)
        with both_identified_first():
            responses = await at_once([first(one, one.id, role), second(other, other.id, role)])
        assert lost(responses) == ["last_admin"], statuses(responses)
        assert await admins(client.database) == 1


@pytest.mark.long
async def test_an_admin_remains_whenever_the_requests_meet(client: Client) -> None:
    """A23: without any order between them."""
    for first, second in itertools.combinations_with_replacement(WAYS[:3], 2):
        one, other, role = await two_admins(client)
        responses = await at_once([first(one, other.id, role), second(other, one.id, role)])
        assert len(lost(responses)) == 1, statuses(responses)
        assert set(lost(responses)) <= {"invalid_token", "insufficient_scope"}
        assert await admins(client.database) == 1


@pytest.fixture
def locks(monkeypatch: pytest.MonkeyPatch) -> list[Transaction]:
    """The transactions that have asked for the lock of rights."""
    found: list[Transaction] = []
    take = authorization.lock_rights

    def lock_rights(transaction: Transaction) -> None:
        found.append(transaction)
        take(transaction)

    monkeypatch.setattr(authorization, "lock_rights", lock_rights)
    return found


async def test_who_is_no_admin_leaves_without_the_lock_of_rights(
    client: Client, locks: list[Transaction]
) -> None:
    """However long it takes to delete their posts, rights change meanwhile."""
    one, _, _ = await two_admins(client)
    leaving = [
        await client.user("Ana"),
        await client.user_with(Permission.posts_write, *GRANTING),
    ]
    for person in leaving:
        assert (await leave(person, 0, 0)).status_code == 204
    assert locks == []
    assert (await leave(one, 0, 0)).status_code == 204
    assert locks


@pytest.mark.parametrize("others", [0, 1])
async def test_who_is_made_an_admin_while_they_leave_is_taken_for_one(
    client: Client, locks: list[Transaction], monkeypatch: pytest.MonkeyPatch, others: int
) -> None:
    """The last admin stays, whichever user it was when the request began."""
    one, other, role = await two_admins(client)
    ana, looks, is_admin = await client.user("Ana"), list[bool](), admins_module.is_admin

    async def look(session: AsyncSession, *, user_id: int) -> bool:
        found = await is_admin(session, user_id=user_id)
        looks.append(found)
        if len(looks) == 1:
            assert (await one.put(f"/users/{ana.id}/roles/{role}")).status_code == 204
            for admin in [one, other][others:]:
                assert (await demote(ana, admin.id, role)).status_code == 204
            locks.clear()
        return found

    monkeypatch.setattr(admins_module, "is_admin", look)
    left = await leave(ana, 0, 0)
    assert looks[0] is False
    assert all(looks[1:])
    assert locks
    if others:
        assert left.status_code == 204
    else:
        assert (left.status_code, left.json()["code"]) == (409, "last_admin")
    assert await admins(client.database) == 1


async def admins(database: Database) -> int:
    active = (
        select(func.count())
        .select_from(User)
        .join(UserRole, UserRole.user_id == User.id)
        .join(Role, Role.id == UserRole.role_id)
        .where(Role.name == ADMIN_ROLE, User.is_active)
    )
    return await count(database, active)
