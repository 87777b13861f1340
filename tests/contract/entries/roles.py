"""Roles, and the permissions that they can grant."""

from __future__ import annotations

from app.core.permissions import Permission
from tests.contract.entries.base import Body, Case, Entry, Filled, nothing, numbers
from tests.support.client import Client, Person
from tests.support.matrix import Scenario, World
from tests.support.people import new_user
from tests.support.response_shapes import keys, page_of

ROLE = keys("id name description permissions is_system user_count created_at updated_at")
MEMBER = keys(
    "id email name phone birth_date locale is_active email_verified created_at updated_at"
)


async def new_role(world: World) -> Scenario:
    body = {"name": f"new role {next(numbers)}", "permissions": []}
    return Scenario(await new_user(world.root), options={"json": body})


async def a_role(world: World) -> Scenario:
    """A role that its owner has and that grants nothing: only the permission check can refuse."""
    owner = await new_user(world.root)
    created = await world.root.post("/roles", {"name": f"a role {next(numbers)}"})
    role_id = created.json()["id"]
    given = await world.root.put(f"/users/{owner.id}/roles/{role_id}")
    assert given.status_code == 204
    return Scenario(owner, {"user_id": owner.id, "role_id": role_id})


async def a_changed_role(world: World) -> Scenario:
    scenario = await a_role(world)
    scenario.options["json"] = {"description": "Another description"}
    return scenario


async def a_role_to_give(world: World) -> Scenario:
    scenario = await a_role(world)
    taken = await world.root.delete("/users/{user_id}/roles/{role_id}".format(**scenario.ids))
    assert taken.status_code == 204
    return scenario


def _body(number: int) -> Body:
    return {"name": f"key {number}", "permissions": ["users:read"]}


async def _fill(filled: Filled) -> None:
    admin, ids = filled.admin, filled.ids
    for name in ("free", "given"):
        ids[name] = (await admin.post("/roles", {"name": f"{name} role"})).json()["id"]
    await admin.put(f"/users/{ids['member']}/roles/{ids['given']}")


async def _role_id(_: Client, admin: Person) -> int:
    return int((await admin.post("/roles", {"name": "nobody of ours"})).json()["id"])


ENTRY = Entry(
    "roles",
    # Of each of ACTORS: anonymous, user, owner, stranger, moderator, admin, disabled, deleted.
    {
        "list_permissions": Case(
            (401, 403, 403, 403, 403, 200, 401, 401),
            nothing,
            page_of(keys("name description")),
            Permission.roles_read,
        ),
        "list_roles": Case(
            (401, 403, 403, 403, 403, 200, 401, 401), nothing, page_of(ROLE), Permission.roles_read
        ),
        "create_role": Case(
            (401, 403, 403, 403, 403, 201, 401, 401), new_role, ROLE, Permission.roles_write
        ),
        "get_role": Case(
            (401, 403, 403, 403, 403, 200, 401, 401), a_role, ROLE, Permission.roles_read
        ),
        "update_role": Case(
            (401, 403, 403, 403, 403, 200, 401, 401),
            a_changed_role,
            ROLE,
            Permission.roles_write,
            if_match=True,
        ),
        "delete_role": Case(
            (401, 403, 403, 403, 403, 204, 401, 401),
            a_role,
            None,
            Permission.roles_write,
            if_match=True,
        ),
        "list_role_users": Case(
            (401, 403, 403, 403, 403, 200, 401, 401), a_role, page_of(MEMBER), Permission.roles_read
        ),
    },
    bodies={"/roles": _body},
    writes={
        "create_role": ("POST", "/roles", {"name": "new role", "permissions": ["posts:write"]}),
        "update_role": ("PATCH", "/roles/{free}", {"permissions": ["posts:write"]}),
        "delete_role": ("DELETE", "/roles/{given}", None),
    },
    fill=_fill,
    row_ids={"role_id": _role_id},
    tagged=(ROLE,),
    collection="/roles",
    noun="role",
    change={"description": "Another description"},
    invalid={"name": ""},
)
