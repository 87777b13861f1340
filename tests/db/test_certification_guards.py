"""Which rows are written so that races are lost by certification, where the server is a node of a
cluster. That they are lost is shown on a real one, by `tests/faults/test_galera_*.py`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import httpx2
import pytest
from sqlalchemy import select

from app.core.permissions import ADMIN_ROLE, Permission
from app.db import transactions
from app.models.base import INCLUDE_DELETED
from app.models.roles import Role
from app.models.sessions import LoginSession
from app.models.users import User
from tests.support.client import PASSWORD, Client, Person


@pytest.fixture
def on_a_node(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take every server for a node of a cluster."""
    monkeypatch.setattr(transactions, "on_cluster", lambda _: True)


Guards = dict[str, int]


async def guards_of(client: Client) -> Guards:
    """The counter of each row: `user 1`, `role admin`, `session of 1`."""
    found: Guards = {}
    async with client.database.begin(readonly=True) as session:
        options = {INCLUDE_DELETED: True}
        for user in await session.scalars(select(User), execution_options=options):
            found[f"user {user.id}"] = user.guard
        for role in await session.scalars(select(Role), execution_options=options):
            found[f"role {role.name}"] = role.guard
        for login in await session.scalars(select(LoginSession)):
            found[f"session of {login.user_id}"] = login.guard
    return found


async def written(client: Client, act: Awaitable[httpx2.Response]) -> set[str]:
    """The rows whose counter an act has raised."""
    before = await guards_of(client)
    response = await act
    assert response.is_success, response.text
    return raised(before, await guards_of(client))


def raised(before: Guards, after: Guards) -> set[str]:
    """The rows whose counter has grown."""
    return {row for row, count in after.items() if count > before.get(row, 0)}


@dataclass
class People:
    """Two admins, a user with a role of their own, and a user with no more than the role `user`."""

    boss: Person
    other: Person
    member: Person
    ana: Person
    role_ids: dict[str, int]

    @property
    def role(self) -> str:
        """The name of the role that `member` has."""
        return f"member {self.member.id}"


@pytest.fixture
async def people(client: Client) -> People:
    boss, other = await client.admin("Boss"), await client.admin("Other")
    member = await client.user_with(Permission.posts_write, Permission.roles_assign)
    ana = await client.user()
    roles = (await boss.get("/roles")).json()["items"]
    ids = {role["name"]: role["id"] for role in roles}
    return People(boss, other, member, ana, ids)


async def restored(people: People) -> httpx2.Response:
    return await people.boss.post(f"/posts/{await post_in_trash(people)}/restore")


async def post_in_trash(people: People) -> int:
    created = await people.ana.post("/posts", {"title": "One", "content": ""})
    post: int = created.json()["id"]
    assert (await people.ana.delete(f"/posts/{post}")).status_code == 204
    return post


def demoted(people: People) -> Awaitable[httpx2.Response]:
    admin = people.role_ids[ADMIN_ROLE]
    return people.boss.delete(f"/users/{people.other.id}/roles/{admin}")


def revoked(people: People) -> Awaitable[httpx2.Response]:
    role = people.role_ids[people.role]
    return people.boss.delete(f"/users/{people.member.id}/roles/{role}")


def assigned(people: People) -> Awaitable[httpx2.Response]:
    role = people.role_ids[people.role]
    return people.boss.put(f"/users/{people.ana.id}/roles/{role}")


def assigned_again(people: People) -> Awaitable[httpx2.Response]:
    role = people.role_ids[people.role]
    return people.boss.put(f"/users/{people.member.id}/roles/{role}")


def admin_disabled(people: People) -> Awaitable[httpx2.Response]:
    return people.boss.patch(f"/users/{people.other.id}", {"is_active": False})


def admin_deleted(people: People) -> Awaitable[httpx2.Response]:
    return people.boss.delete(f"/users/{people.other.id}")


def admin_left(people: People) -> Awaitable[httpx2.Response]:
    return people.other.delete("/users/me", {"current_password": PASSWORD})


def user_left(people: People) -> Awaitable[httpx2.Response]:
    return people.ana.delete("/users/me", {"current_password": PASSWORD})


def user_deleted(people: People) -> Awaitable[httpx2.Response]:
    return people.boss.delete(f"/users/{people.ana.id}")


def role_renamed(people: People) -> Awaitable[httpx2.Response]:
    return people.boss.patch(f"/roles/{people.role_ids[people.role]}", {"description": "Other"})


def role_unchanged(people: People) -> Awaitable[httpx2.Response]:
    return people.boss.patch(f"/roles/{people.role_ids[people.role]}", {})


def role_extended(people: People) -> Awaitable[httpx2.Response]:
    more = {"permissions": ["posts:write", "roles:assign", "outbox:read"]}
    return people.boss.patch(f"/roles/{people.role_ids[people.role]}", more)


def role_emptied(people: People) -> Awaitable[httpx2.Response]:
    return people.boss.patch(f"/roles/{people.role_ids[people.role]}", {"permissions": []})


def role_deleted(people: People) -> Awaitable[httpx2.Response]:
    return people.boss.delete(f"/roles/{people.role_ids[people.role]}")


def logged_in(people: People) -> Awaitable[httpx2.Response]:
    form = {"username": people.ana.email, "password": PASSWORD}
    return people.ana.request("POST", "/auth/login", data=form)


def forgotten(people: People) -> Awaitable[httpx2.Response]:
    return people.ana.post("/auth/password/forgot", {"email": people.ana.email})


def resent(people: People) -> Awaitable[httpx2.Response]:
    return people.ana.post("/auth/email/verify/resend")


RIGHTS = {"role admin"}
BY_BOSS = {"session of BOSS"}
EXPECTED: list[tuple[Callable[[People], Awaitable[httpx2.Response]], set[str]]] = [
    (demoted, RIGHTS | BY_BOSS | {"session of OTHER"}),
    (admin_disabled, RIGHTS | BY_BOSS),
    (admin_deleted, RIGHTS | BY_BOSS),
    (admin_left, RIGHTS | {"session of OTHER"}),
    (user_left, {"session of ANA"}),
    (user_deleted, RIGHTS | BY_BOSS),
    (revoked, RIGHTS | BY_BOSS | {"session of MEMBER"}),
    (assigned, RIGHTS | BY_BOSS | {"user ANA"}),
    (assigned_again, RIGHTS | BY_BOSS),
    (role_renamed, RIGHTS | BY_BOSS),
    (role_unchanged, RIGHTS | BY_BOSS),
    (role_extended, RIGHTS | BY_BOSS),
    (role_emptied, RIGHTS | BY_BOSS),
    (role_deleted, RIGHTS | BY_BOSS),
    (restored, BY_BOSS | {"user ANA", "session of ANA"}),
    (logged_in, {"user ANA"}),
    (forgotten, {"user ANA"}),
    (resent, {"user ANA", "session of ANA"}),
]


@pytest.mark.usefixtures("on_a_node")
@pytest.mark.parametrize(("act", "rows"), EXPECTED, ids=[each.__name__ for each, _ in EXPECTED])
async def test_both_sides_of_a_race_write_the_row_that_both_lock(
    client: Client,
    people: People,
    act: Callable[[People], Awaitable[httpx2.Response]],
    rows: set[str],
) -> None:
    everybody = {"BOSS": people.boss, "OTHER": people.other, "MEMBER": people.member}
    names: dict[str, str] = {}
    for name, who in (everybody | {"ANA": people.ana}).items():
        names |= {f"user {name}": f"user {who.id}", f"session of {name}": f"session of {who.id}"}
    assert await written(client, act(people)) == {names.get(row, row) for row in rows}


async def test_a_single_server_writes_nothing_for_it(client: Client, people: People) -> None:
    assert await written(client, logged_in(people)) == set()
    assert await written(client, assigned(people)) == set()
    assert await written(client, demoted(people)) == set()


@pytest.mark.usefixtures("on_a_node")
async def test_what_was_written_for_it_changes_nothing_that_is_shown(
    client: Client, people: People
) -> None:
    path = f"/users/{people.ana.id}"
    before = await people.boss.get(path)
    assert await written(client, logged_in(people)) == {f"user {people.ana.id}"}
    after = await people.boss.get(path)
    assert after.json() == before.json()
    assert after.headers["etag"] == before.headers["etag"]
    assert "guard" not in after.text


@pytest.mark.usefixtures("on_a_node")
async def test_a_session_is_touched_by_what_it_authorises(client: Client, people: People) -> None:
    post = {"title": "One", "content": ""}
    touched = await written(client, people.ana.post("/posts", post))
    on_sqlite = client.database.dialect == "sqlite"  # whose short transactions know no cluster
    assert touched == (set() if on_sqlite else {f"session of {people.ana.id}"})
