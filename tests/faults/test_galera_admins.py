"""Two admins against each other, on two nodes of a cluster: one of them is always left."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from random import Random

import httpx2
import pytest
from sqlalchemy import Select, func, insert, select, update

from app.core.permissions import ADMIN_ROLE
from app.models.roles import Role
from app.models.sessions import LoginSession
from app.models.users import User, UserRole
from tests.faults.nodes import Nodes, Person
from tests.faults.report import Report
from tests.faults.rounds import Round, run
from tests.support.client import PASSWORD

pytestmark = pytest.mark.faults

Way = Callable[[Nodes, int, Person, Person, int], Awaitable[httpx2.Response]]


def demote(
    nodes: Nodes, node: int, who: Person, whom: Person, role: int
) -> Awaitable[httpx2.Response]:
    return nodes.send(node, who, "DELETE", f"/users/{whom.id}/roles/{role}")


def disable(
    nodes: Nodes, node: int, who: Person, whom: Person, _: int
) -> Awaitable[httpx2.Response]:
    return nodes.send(node, who, "PATCH", f"/users/{whom.id}", {"is_active": False})


def delete(
    nodes: Nodes, node: int, who: Person, whom: Person, _: int
) -> Awaitable[httpx2.Response]:
    return nodes.send(node, who, "DELETE", f"/users/{whom.id}")


def resign(
    nodes: Nodes, node: int, who: Person, _: Person, role: int
) -> Awaitable[httpx2.Response]:
    return nodes.send(node, who, "DELETE", f"/users/{who.id}/roles/{role}")


def leave(nodes: Nodes, node: int, who: Person, _: Person, __: int) -> Awaitable[httpx2.Response]:
    return nodes.send(node, who, "DELETE", "/users/me", {"current_password": PASSWORD})


WAYS = (demote, disable, delete, resign, leave)


@pytest.mark.parametrize("ways", [*WAYS, None], ids=lambda way: way.__name__ if way else "mixed")
async def test_an_admin_is_left(
    nodes: Nodes, ways: Way | None, whole: bool, seed: int, report: Report
) -> None:
    random = Random(seed)

    async def no_admin_left(nodes: Nodes) -> Round:
        await nodes.change(update(User).values(is_active=False))
        one, other = await nodes.person(ADMIN_ROLE), await nodes.person(ADMIN_ROLE)
        async with nodes.databases[0].begin() as session:
            role_id = (await session.scalars(select(Role.id).where(Role.name == ADMIN_ROLE))).one()

        async def once() -> bool:
            await two_admins(nodes, role_id, one, other)
            first, second = random.choices(WAYS, k=2) if ways is None else (ways, ways)
            await nodes.race(
                first(nodes, 0, one, other, role_id), second(nodes, 1, other, one, role_id)
            )
            return await nodes.count(active_admins()) == 0

        return once

    name = f"two admins, {ways.__name__ if ways else 'mixed'}"
    await run(nodes, no_admin_left, report, rounds=50 if whole else 3, name=name)


async def two_admins(nodes: Nodes, role_id: int, one: Person, other: Person) -> None:
    """Make these the only admins again, with the sessions they had."""
    both = [one.id, other.id]
    await nodes.change(
        update(User).where(User.id.in_(both)).values(is_active=True, deleted_at=None),
        update(LoginSession).where(LoginSession.user_id.in_(both)).values(ended_at=None),
        insert(UserRole)
        .prefix_with("IGNORE")
        .values([{"user_id": each, "role_id": role_id} for each in both]),
    )


def active_admins() -> Select[int]:
    return (
        select(func.count())
        .select_from(User)
        .join(UserRole, UserRole.user_id == User.id)
        .join(Role, Role.id == UserRole.role_id)
        .where(Role.name == ADMIN_ROLE, User.is_active, User.deleted_at.is_(None))
    )
