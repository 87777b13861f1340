"""Every authenticated write checks the caller's permission again in its own transaction."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import cast

import httpx2
import pytest
from sqlalchemy import Dialect, create_engine, delete, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.permissions import Caller, Permission
from app.crud import authorization, sessions
from app.db.engine import Database
from app.db.queries import PreparedQuery, Rows
from app.db.transactions import Transaction
from app.models.base import utc_now
from app.models.roles import RolePermission
from app.models.sessions import LoginSession
from app.models.users import User, UserRole
from tests.contract.resources import REQUIRED_PERMISSION, SCENARIOS
from tests.support.client import PASSWORD, Client, Person
from tests.support.document import documented
from tests.support.matrix import World, call, operation_of, snapshot
from tests.support.people import user_with

Removal = Callable[[AsyncSession, int], Awaitable[object]]


async def end_sessions(session: AsyncSession, user_id: int) -> None:
    statement = update(LoginSession).values(ended_at=utc_now())
    await session.execute(statement.where(LoginSession.user_id == user_id))


async def let_sessions_expire(session: AsyncSession, user_id: int) -> None:
    statement = update(LoginSession).values(expires_at=utc_now())
    await session.execute(statement.where(LoginSession.user_id == user_id))


async def disable(session: AsyncSession, user_id: int) -> None:
    await session.execute(update(User).values(is_active=False).where(User.id == user_id))


async def soft_delete(session: AsyncSession, user_id: int) -> None:
    await session.execute(update(User).values(deleted_at=utc_now()).where(User.id == user_id))


async def revoke_roles(session: AsyncSession, user_id: int) -> None:
    await session.execute(delete(UserRole).where(UserRole.user_id == user_id))


async def empty_roles(session: AsyncSession, user_id: int) -> None:
    theirs = select(UserRole.role_id).where(UserRole.user_id == user_id).scalar_subquery()
    await session.execute(delete(RolePermission).where(RolePermission.role_id == theirs))


def _security(row: str) -> list[str]:
    """The scopes an operation asks for: none for a login alone."""
    _, _, operation = documented().operations[operation_of(row)]
    return [scope for entry in operation["security"] for scope in entry.get("OAuth2", [])]


def _writes_behind_a_login(row: str) -> bool:
    method, _, operation = documented().operations[operation_of(row)]
    return method not in {"get", "head"} and any("OAuth2" in each for each in operation["security"])


WRITE_ROWS = [row for row in SCENARIOS if _writes_behind_a_login(row)]
REMOVALS: dict[Removal, int] = {
    end_sessions: 401,
    let_sessions_expire: 401,
    disable: 401,
    soft_delete: 401,
    revoke_roles: 403,
    empty_roles: 403,
}


def _removals(row: str) -> dict[Removal, int]:
    """What ends an operation: rights only where it asks for any, and not those of everybody."""
    return {
        removal: status
        for removal, status in REMOVALS.items()
        if status == 401
        or (removal is revoke_roles and _security(row))
        or (removal is empty_roles and row in REQUIRED_PERMISSION)
    }


@pytest.fixture
def long_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing known of a caller is forgotten because of the time alone."""
    monkeypatch.setattr(sessions, "CALLER_CACHE_SECONDS", 3_600)


def test_the_rows_are_all_there() -> None:
    assert {"create_post", "update_me", "logout", "assign_role", "retry_mail"} <= set(WRITE_ROWS)
    assert len({operation_of(row) for row in WRITE_ROWS}) >= 20


@pytest.mark.long
@pytest.mark.parametrize("row", WRITE_ROWS)
@pytest.mark.usefixtures("long_memory")
async def test_a_write_asks_again_in_its_transaction(
    client: Client, other_process: Database, row: str
) -> None:
    """A65: another process takes away a session, an account or a right. This one still remembers
    the caller, lets them pass its permission check, and refuses them where it would commit."""
    world = World(await client.admin(), {})
    for removal, status in _removals(row).items():
        scenario = await SCENARIOS[row](world)
        actor = (
            await user_with(client, *Permission) if row in REQUIRED_PERMISSION else scenario.owner
        )
        assert isinstance(actor, Person)
        assert (await actor.get("/auth/sessions")).status_code == 200, "the caller is remembered"
        async with other_process.begin() as session:
            await removal(session, actor.id)
        assert (await actor.get("/auth/sessions")).status_code == 200, "and still is"
        before = await snapshot(client.database)
        response = await call(actor, row, scenario)
        assert response.status_code == status, f"{removal.__name__}: {response.text}"
        assert await snapshot(client.database) == before, "the refused write changed something"


@pytest.mark.usefixtures("long_memory")
async def test_an_account_deleted_elsewhere_is_no_longer_read(
    client: Client, other_process: Database
) -> None:
    """A24: a process that still remembers the caller answers 401, as if it did not."""
    person = await client.user()
    assert (await person.get("/users/me")).status_code == 200
    async with other_process.begin() as session:
        await soft_delete(session, person.id)
    assert (await person.get("/auth/sessions")).status_code == 200, "the caller is remembered"
    assert (await person.get("/users/me")).status_code == 401
    gone = await person.delete("/users/me", {"current_password": PASSWORD})
    assert gone.status_code == 401


Write = Callable[[Person, int], Awaitable[httpx2.Response]]


def create_post(person: Person, _: int) -> Awaitable[httpx2.Response]:
    return person.post("/posts", {"title": "Written late", "content": ""})


def update_post(person: Person, post_id: int) -> Awaitable[httpx2.Response]:
    return person.patch(f"/posts/{post_id}", {"title": "Changed late"})


@pytest.mark.parametrize("write", [create_post, update_post])
@pytest.mark.usefixtures("long_memory")
async def test_a_write_that_waits_for_a_removal_sees_it(
    client: Client, other_process: Database, write: Write
) -> None:
    """A65: it waits for the lock of a transaction that takes the role away, and is refused by what
    that has committed; PostgreSQL would show what stood there before the wait."""
    moderator = await user_with(client, Permission.posts_write, Permission.posts_moderate)
    post = await (await client.user()).write()
    assert (await moderator.get("/auth/sessions")).status_code == 200, "the caller is remembered"
    async with other_process.begin() as session:
        await session.execute(select(User.id).where(User.id == moderator.id).with_for_update())
        await revoke_roles(session, moderator.id)
        writing = asyncio.ensure_future(write(moderator, post["id"]))
        await asyncio.sleep(0.2)
        assert not writing.done(), "it waits"
    assert (await writing).status_code == 403


@dataclass
class Scripted:
    """A transaction that answers each statement in turn, and keeps what it was asked."""

    dialect: Dialect
    answers: list[Rows]
    is_cluster: bool = False
    asked: list[str] = field(default_factory=list)

    def rows(self, query: PreparedQuery, **_: object) -> Rows:
        self.asked.append(query.compiled(self.dialect).sql)
        return self.answers.pop(0)


@pytest.mark.parametrize("is_free", [True, False])
def test_postgresql_waits_for_locks_before_it_reads(is_free: bool) -> None:
    """One statement where nobody else has the locks; else its snapshot would be from before."""
    found: Rows = [("Ana", None, None)]
    dialect = create_engine("postgresql+psycopg://nowhere/").dialect
    scripted = Scripted(dialect, [found] if is_free else [[], [(1,)], found])
    caller = authorization.recheck_caller(cast("Transaction", scripted), Caller(1, 2, frozenset()))
    assert (caller.name, caller.permissions) == ("Ana", frozenset())
    at_once, *after_the_wait = scripted.asked
    assert at_once.endswith("SKIP LOCKED")
    assert [sql.endswith("FOR SHARE OF users, sessions") for sql in after_the_wait] == (
        [] if is_free else [True, False]
    )
