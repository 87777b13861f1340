"""Cached authentication: a remembered caller is never out of date for longer than allowed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
from sqlalchemy import delete, update

from app.core.permissions import Permission
from app.crud import sessions
from app.crud.sessions import TokenAuthenticator
from app.db.engine import Database
from app.models.base import utc_now
from app.models.roles import RolePermission
from app.models.sessions import LoginSession
from app.models.users import User, UserRole
from tests.support import sql, tokens
from tests.support.client import PASSWORD, Client, Person
from tests.support.clock import Clock, clock_in
from tests.support.people import granting, new_user, new_users

PROMISED_SECONDS = 1.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return clock_in(monkeypatch, sessions)


@pytest.fixture
def long_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is forgotten because of the time alone."""
    monkeypatch.setattr(sessions, "CALLER_CACHE_SECONDS", 3_600)


async def reader_and_admin(client: Client) -> tuple[Person, Person]:
    """Return a user who may read users by a role of their own, already cached, and an admin."""
    bea, admin = await new_users(client, [granting(Permission.users_read)], ["admin"])
    assert await status(bea) == 200
    assert await look_ups(bea) == 0, "who they are is remembered"
    return bea, admin


async def status(person: Person, path: str = "/users") -> int:
    return (await person.get(path)).status_code


async def look_ups(person: Person) -> int:
    """Return how many queries for the caller one request sends."""
    with sql.watched(person.database) as sent:
        await person.get("/users/me")
    return sum("JOIN sessions" in each.text for each in sent)


async def role_of(person: Person, admin: Person) -> str:
    found = (await admin.get(f"/users/{person.id}/roles")).json()["items"]
    return str(found[0]["id"])


# --- Written by this process ---------------------------------------------------------------------

Change = Callable[[Person, Person], Awaitable[object]]


async def logout(bea: Person, _: Person) -> object:
    return await bea.post("/auth/logout")


async def delete_myself(bea: Person, _: Person) -> object:
    return await bea.delete("/users/me", {"current_password": PASSWORD})


async def disable(bea: Person, admin: Person) -> object:
    return await admin.patch(f"/users/{bea.id}", {"is_active": False})


async def remove(bea: Person, admin: Person) -> object:
    return await admin.delete(f"/users/{bea.id}")


async def revoke_role(bea: Person, admin: Person) -> object:
    return await admin.delete(f"/users/{bea.id}/roles/{await role_of(bea, admin)}")


async def edit_role(bea: Person, admin: Person) -> object:
    changed = {"permissions": ["posts:write"]}
    return await admin.patch(f"/roles/{await role_of(bea, admin)}", changed)


async def delete_role(bea: Person, admin: Person) -> object:
    return await admin.delete(f"/roles/{await role_of(bea, admin)}")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (logout, 401),
        (delete_myself, 401),
        (disable, 401),
        (remove, 401),
        (revoke_role, 403),
        (edit_role, 403),
        (delete_role, 403),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
@pytest.mark.usefixtures("long_memory")
async def test_what_is_taken_here_is_gone_at_the_next_request(
    client: Client, change: Change, expected: int
) -> None:
    bea, admin = await reader_and_admin(client)
    assert await status(bea) == 200
    await change(bea, admin)
    assert await status(bea) == expected


@pytest.mark.usefixtures("long_memory")
async def test_what_is_given_here_counts_at_the_next_request(client: Client) -> None:
    """A role, and a permission of a role they have."""
    bea, admin = await reader_and_admin(client)
    role, paths = await role_of(bea, admin), ("/users", "/roles", "/outbox")
    assert [await status(bea, path) for path in paths] == [200, 403, 403]
    created = await admin.post("/roles", {"name": "mails", "permissions": ["outbox:read"]})
    assert (await admin.put(f"/users/{bea.id}/roles/{created.json()['id']}")).status_code == 204
    assert [await status(bea, path) for path in paths] == [200, 403, 200]
    await admin.patch(f"/roles/{role}", {"permissions": ["users:read", "roles:read"]})
    assert [await status(bea, path) for path in paths] == [200, 200, 200]


@pytest.mark.usefixtures("long_memory")
async def test_one_session_that_ends_leaves_the_others(client: Client) -> None:
    bea, _ = await reader_and_admin(client)
    again = await client.person(bea.account)
    assert await status(again) == 200
    assert (await bea.post("/auth/logout")).status_code == 204
    assert (await status(bea), await status(again)) == (401, 200)


@pytest.mark.usefixtures("long_memory")
async def test_posts_and_logins_of_others_make_nobody_looked_up_again(client: Client) -> None:
    """Else a busy site would remember nothing."""
    bea, _ = await reader_and_admin(client)
    ana = await client.user()
    await ana.write(tags=["new"])
    assert await look_ups(bea) == 0


@pytest.mark.usefixtures("long_memory")
async def test_a_look_up_that_a_change_overtakes_is_not_remembered(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    bea, admin = await new_users(client, [granting(Permission.users_read)], ["admin"])
    look_up = TokenAuthenticator.of

    async def overtaken(self: TokenAuthenticator, **who: int) -> object:
        found = await look_up(self, **who)
        monkeypatch.setattr(TokenAuthenticator, "of", look_up)
        assert (await admin.patch(f"/users/{bea.id}", {"is_active": False})).status_code == 200
        return found

    monkeypatch.setattr(TokenAuthenticator, "of", overtaken)
    assert await status(bea) == 200, "so it was when the question was asked"
    assert await status(bea) == 401


# --- Written by another process ------------------------------------------------------------------


async def end_session(other: Database, bea: Person) -> None:
    async with other.begin() as session:
        ending = update(LoginSession).where(LoginSession.user_id == bea.id)
        await session.execute(ending.values(ended_at=utc_now()))


async def disable_elsewhere(other: Database, bea: Person) -> None:
    async with other.begin() as session:
        await session.execute(update(User).where(User.id == bea.id).values(is_active=False))


async def trash_elsewhere(other: Database, bea: Person) -> None:
    async with other.begin() as session:
        await session.execute(update(User).where(User.id == bea.id).values(deleted_at=utc_now()))


async def take_role(other: Database, bea: Person) -> None:
    async with other.begin() as session:
        await session.execute(delete(UserRole).where(UserRole.user_id == bea.id))


async def take_permission(other: Database, _: Person) -> None:
    async with other.begin() as session:
        wanted = RolePermission.permission == Permission.users_read
        await session.execute(delete(RolePermission).where(wanted))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (end_session, 401),
        (disable_elsewhere, 401),
        (trash_elsewhere, 401),
        (take_role, 403),
        (take_permission, 403),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
async def test_what_another_process_takes_is_gone_within_a_second(
    client: Client,
    other_process: Database,
    clock: Clock,
    change: Callable[[Database, Person], Awaitable[None]],
    expected: int,
) -> None:
    clock.ahead = -PROMISED_SECONDS
    bea, _ = await new_users(client, [granting(Permission.users_read)], ["admin"])
    assert await status(bea) == 200
    await change(other_process, bea)
    clock.ahead = 0
    assert await status(bea) == expected


@pytest.mark.usefixtures("long_memory")
async def test_meanwhile_they_are_remembered(client: Client, other_process: Database) -> None:
    """What the second is for: nothing is asked that was just answered."""
    bea, _ = await reader_and_admin(client)
    await end_session(other_process, bea)
    assert await status(bea) == 200


# --- Bounds --------------------------------------------------------------------------------------


async def test_an_expired_token_is_refused_although_remembered(
    client: Client, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where it would be remembered for longer than it lasts."""
    bea = await new_user(client)
    session_id = int(tokens.decoded(bea.token)["sid"])
    for seconds in (3_600.0, 0.1):
        monkeypatch.setattr(sessions, "CALLER_CACHE_SECONDS", seconds)
        clock.ahead = 0
        token = tokens.signed(tokens.claims(bea.id, session_id))
        bea.headers = {"Authorization": f"Bearer {token}"}
        assert await status(bea, "/users/me") == 200
        clock.ahead = 590
        assert await status(bea, "/users/me") == 200, "it lasts 600 seconds"
        clock.ahead = 601
        assert await status(bea, "/users/me") == 401


async def test_what_is_remembered_is_bounded(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "_MAX_CACHED", 3)
    people = [await new_user(client) for _ in range(8)]
    identities: TokenAuthenticator = client.app.state.authenticator
    for person in people + people:
        assert (await person.get("/users/me")).json()["id"] == person.id
        assert len(identities._entries) <= 3


async def test_a_bad_token_is_not_remembered(client: Client) -> None:
    identities: TokenAuthenticator = client.app.state.authenticator
    before = len(identities._entries)
    for number in range(5):
        headers = {"Authorization": f"Bearer no-token-{number}"}
        assert (await client.get("/users/me", headers=headers)).status_code == 401
    assert len(identities._entries) == before
