"""A small world with one of everybody in it, and one valid call for every case of a resource.

The permission matrix sends the same call, about the same kind of target, for every actor: what
one is refused is what another is allowed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx2
from sqlalchemy import select

from app.core.permissions import ADMIN_ROLE, USER_ROLE, Permission
from app.db.engine import Database
from app.models.audit_events import AuditEvent
from app.models.base import INCLUDE_DELETED, Base
from tests.support.client import Client, Person
from tests.support.people import granting, new_users

ACTORS = (
    "anonymous",
    "user",  # the role `user`, and a stranger to the row
    "owner",  # the author of the post, or the user that the row is about
    "stranger",  # logged in, without any role
    "moderator",  # `posts:write` and `posts:moderate`
    "admin",
    "disabled",  # had a good token when an admin disabled them
    "deleted",  # had a good token when an admin deleted them
)
MISSING_ID = 2**62


@dataclass
class Scenario:
    """What one call is about: whose row it is, the ids in its path, its body."""

    owner: Client
    ids: dict[str, int] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)


@dataclass
class World:
    """The people of the matrix; `root` is an admin who sets the scenes and never acts."""

    root: Person
    people: Mapping[str, Client]

    async def act(self, actor: str, row: str, scenario: Scenario) -> httpx2.Response:
        """The call of a row, by an actor."""
        who = scenario.owner if actor == "owner" else self.people[actor]
        return await call(who, row, scenario)


async def call(who: Client, row: str, scenario: Scenario) -> httpx2.Response:
    """Send the request of a row's operation, as a client."""
    method, template, _ = who.contract.operations[operation_of(row)]
    return await who.request(method.upper(), template.format(**scenario.ids), **scenario.options)


def operation_of(row: str) -> str:
    """`update_post:draft` is a call of `update_post`."""
    return row.partition(":")[0]


# --- People ----------------------------------------------------------------------------------


async def build(client: Client) -> World:
    """A fresh world; the disabled and the deleted were so by an admin, over HTTP."""
    moderating = granting(Permission.posts_write, Permission.posts_moderate)
    root, user, stranger, moderator, admin, disabled, deleted = await new_users(
        client, [ADMIN_ROLE], [USER_ROLE], [], [moderating], [ADMIN_ROLE], [USER_ROLE], [USER_ROLE]
    )
    for gone in (disabled, deleted):
        assert (await gone.get("/users/me")).status_code == 200, "the token was good"
    response = await root.patch(f"/users/{disabled.id}", {"is_active": False})
    assert response.status_code == 200
    assert (await root.delete(f"/users/{deleted.id}")).status_code == 204
    people = {"user": user, "stranger": stranger, "moderator": moderator, "admin": admin}
    dead = {"disabled": disabled, "deleted": deleted}
    return World(root, {"anonymous": client} | people | dead)


# --- Looking behind the API ------------------------------------------------------------------


async def snapshot(database: Database) -> dict[str, list[Any]]:
    """Every row of every table but the audit trail, where refusals are written down."""
    options = {INCLUDE_DELETED: True}
    found = {}
    async with database.begin(readonly=True) as session:
        for table in Base.metadata.sorted_tables:
            if table is AuditEvent.__table__:
                continue
            statement = select(table).order_by(*table.primary_key.columns)
            rows = await session.execute(statement, execution_options=options)
            found[table.name] = [tuple(row) for row in rows]
    return found
