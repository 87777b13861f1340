"""Accounts: one's own, and all of them for those who manage users."""

from __future__ import annotations

from app.core.permissions import Permission
from tests.contract.entries.base import Body, Case, Entry, Filled, nothing, numbers
from tests.contract.entries.posts import POST
from tests.contract.entries.roles import ROLE, a_role, a_role_to_give
from tests.support.client import PASSWORD, Client, Person
from tests.support.matrix import Scenario, World
from tests.support.people import new_user
from tests.support.response_shapes import keys, page_of

USER = keys(
    "id email name phone birth_date locale is_active email_verified"
    " created_at updated_at deleted_at",
    roles=keys("id name"),
)
ME = USER | keys("permissions")


async def account(world: World) -> Scenario:
    body = {"email": f"new{next(numbers)}@example.com", "name": "Nora New"}
    return Scenario(await new_user(world.root), options={"json": body})


async def own_password(world: World) -> Scenario:
    body = {"current_password": PASSWORD}
    return Scenario(await new_user(world.root), options={"json": body})


async def own_new_password(world: World) -> Scenario:
    scenario = await own_password(world)
    scenario.options["json"]["new_password"] = "Another-Horse-8"
    return scenario


async def own_new_email(world: World) -> Scenario:
    scenario = await own_password(world)
    scenario.options["json"]["new_email"] = f"new{next(numbers)}@example.com"
    return scenario


async def a_user(world: World) -> Scenario:
    owner = await new_user(world.root)
    return Scenario(owner, {"user_id": owner.id})


async def a_user_who_wrote(world: World) -> Scenario:
    owner = await new_user(world.root)
    await owner.write(tags=["seen"])
    return Scenario(owner, {"user_id": owner.id})


async def a_deleted_user(world: World) -> Scenario:
    scenario = await a_user(world)
    assert (await world.root.delete(f"/users/{scenario.ids['user_id']}")).status_code == 204
    return scenario


async def a_new_name(world: World) -> Scenario:
    scenario = await a_user(world)
    scenario.options["json"] = {"name": "Another Name"}
    return scenario


def _body(number: int) -> Body:
    return {"email": f"key{number}@example.com", "name": "Luis"}


async def _fill(filled: Filled) -> None:
    admin, ids = filled.admin, filled.ids
    for name in ("bea", "gone", "leaver", "member"):
        ids[name] = (await admin.register(name.title()))["id"]
    assert (await admin.delete(f"/users/{ids['gone']}")).status_code == 204


async def _user_id(client: Client, _: Person) -> int:
    return int((await client.register("Somebody"))["id"])


ENTRY = Entry(
    "users",
    # Of each of ACTORS: anonymous, user, owner, stranger, moderator, admin, disabled, deleted.
    {
        "get_me": Case((401, 200, 200, 200, 200, 200, 401, 401), nothing, ME),
        "update_me": Case((401, 200, 200, 200, 200, 200, 401, 401), a_new_name, ME, if_match=True),
        "change_password": Case((401, 204, 204, 204, 204, 204, 401, 401), own_new_password, None),
        "change_email": Case((401, 202, 202, 202, 202, 202, 401, 401), own_new_email, None),
        "delete_me": Case(
            (401, 204, 204, 204, 204, 204, 401, 401), own_password, None, if_match=True
        ),
        "list_users": Case(
            (401, 403, 403, 403, 403, 200, 401, 401), nothing, page_of(USER), Permission.users_read
        ),
        "create_user": Case(
            (401, 403, 403, 403, 403, 201, 401, 401), account, USER, Permission.users_write
        ),
        "get_user": Case(
            (401, 403, 403, 403, 403, 200, 401, 401), a_user, USER, Permission.users_read
        ),
        "update_user": Case(
            (401, 403, 403, 403, 403, 200, 401, 401),
            a_new_name,
            USER,
            Permission.users_write,
            if_match=True,
        ),
        "delete_user": Case(
            (401, 403, 403, 403, 403, 204, 401, 401),
            a_user,
            None,
            Permission.users_write,
            if_match=True,
        ),
        # The owner is in the trash, and so is their token.
        "restore_user": Case(
            (401, 403, 401, 403, 403, 200, 401, 401),
            a_deleted_user,
            USER,
            Permission.users_write,
            if_match=True,
        ),
        "list_user_posts": Case(
            (200, 200, 200, 200, 200, 200, 401, 401), a_user_who_wrote, page_of(POST)
        ),
        "list_user_roles": Case(
            (401, 403, 403, 403, 403, 200, 401, 401), a_user, page_of(ROLE), Permission.users_read
        ),
        "assign_role": Case(
            (401, 403, 403, 403, 403, 204, 401, 401), a_role_to_give, None, Permission.roles_assign
        ),
        "revoke_role": Case(
            (401, 403, 403, 403, 403, 204, 401, 401), a_role, None, Permission.roles_assign
        ),
    },
    bodies={"/users": _body},
    writes={
        "change_password": (
            "PUT",
            "/users/me/password",
            {"current_password": PASSWORD, "new_password": "Another-Horse-8"},
        ),
        "change_email": (
            "PUT",
            "/users/me/email",
            {"current_password": PASSWORD, "new_email": "moved@example.com"},
        ),
        "update_me": ("PATCH", "/users/me", {"name": "Renamed"}),
        "delete_me": ("DELETE", "/users/me", {"current_password": PASSWORD}),
        "create_user": ("POST", "/users", {"email": "made@example.com", "name": "Made"}),
        "update_user": ("PATCH", "/users/{bea}", {"name": "Renamed", "is_active": False}),
        "delete_user": ("DELETE", "/users/{leaver}", None),
        "restore_user": ("POST", "/users/{gone}/restore", None),
        "assign_role": ("PUT", "/users/{bea}/roles/{free}", None),
        "revoke_role": ("DELETE", "/users/{member}/roles/{given}", None),
    },
    fill=_fill,
    row_ids={"user_id": _user_id},
    tagged=(USER, ME),
    collection="/users",
    noun="user",
    change={"name": "Another Name"},
    invalid={"name": ""},
)
