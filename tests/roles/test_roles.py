"""Roles and the permissions that they grant."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import delete, insert

from app.core.permissions import Permission
from app.models.roles import RolePermission
from tests.support.client import PASSWORD, Client, Person
from tests.support.people import GRANTED_TO_USERS


async def role_named(person: Person, name: str) -> dict[str, Any]:
    """Return a role as the listing shows it."""
    roles = (await person.get("/roles", params={"page_size": 100})).json()["items"]
    found: dict[str, Any] = next(role for role in roles if role["name"] == name)
    return found


async def test_a_role_is_made_read_changed_and_deleted(client: Client) -> None:
    admin = await client.admin()
    body = {"name": " Night Editor ", "description": " Nights. ", "permissions": ["posts:moderate"]}
    created = await admin.post("/roles", body)
    assert created.status_code == 201
    role = created.json()
    path = f"/roles/{role['id']}"
    assert created.headers["location"] == f"/api/v1{path}"
    kept = {name: value for name, value in role.items() if not name.endswith(("id", "_at"))}
    assert kept == {
        "name": "night editor",
        "description": "Nights.",
        "permissions": ["posts:moderate"],
        "is_system": False,
        "user_count": 0,
    }
    assert (await admin.get(path)).json() == role
    changes = {
        "name": "day editor",
        "description": "",
        "permissions": ["users:read", "posts:write"],
    }
    changed = (await admin.patch(path, changes)).json()
    assert changed == role | changes | {"updated_at": changed["updated_at"]}
    assert (await admin.get(path)).json() == changed
    assert (await admin.patch(path, {})).json() == changed
    assert (await admin.delete(path)).status_code == 204
    for response in (await admin.get(path), await admin.patch(path, {}), await admin.delete(path)):
        assert response.status_code == 404
    assert (await admin.get(f"{path}/users")).status_code == 404


async def test_a_role_is_held_to_its_rules(client: Client) -> None:
    admin = await client.admin()
    path = f"/roles/{(await admin.post('/roles', {'name': 'good'})).json()['id']}"
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"name": "x"}, "name: string_too_short"),
        ({"name": "x" * 51}, "name: string_too_long"),
        ({"name": "\N{LATIN SMALL LIGATURE FFI}" * 20}, "name: string_too_long"),
        ({"name": "<script>"}, "name: string_pattern_mismatch"),
        ({"name": None}, "name: string_type"),
        ({"description": "x" * 501}, "description: string_too_long"),
        ({"description": "a\0b"}, "description: text_unstorable"),
        ({"permissions": ["everything"]}, "permissions.0: enum"),
        ({"permissions": None}, "permissions: list_type"),
        ({"permissions": ["users:read"] * 50}, "permissions: too_long"),
        ({"is_admin": True}, "is_admin: extra_forbidden"),
    ]
    for body, expected in wrong:
        for response in (
            await admin.post("/roles", {"name": "role"} | body),
            await admin.patch(path, body),
        ):
            assert response.status_code == 422, body
            errors = response.json()["errors"]
            assert [f"{error['field']}: {error['type']}" for error in errors] == [expected]
    assert (await admin.post("/roles", {})).status_code == 422


async def test_a_name_belongs_to_one_live_role(client: Client) -> None:
    admin = await client.admin()
    first = (await admin.post("/roles", {"name": "Editor"})).json()
    other = (await admin.post("/roles", {"name": "other"})).json()
    for response in (
        await admin.post("/roles", {"name": "EDITOR"}),
        await admin.post("/roles", {"name": "\N{FULLWIDTH LATIN SMALL LETTER E}ditor"}),
        await admin.post("/roles", {"name": "admin"}),
        await admin.patch(f"/roles/{other['id']}", {"name": "editor"}),
    ):
        assert response.status_code == 409
        assert response.json()["code"] == "role_name_taken"
    assert (await admin.get(f"/roles/{other['id']}")).json() == other
    assert (await admin.patch(f"/roles/{first['id']}", {"name": "editor"})).status_code == 200
    assert (await admin.post("/roles", {"name": "éditor"})).status_code == 201
    assert (await admin.delete(f"/roles/{first['id']}")).status_code == 204
    again = await admin.post("/roles", {"name": "editor"})
    assert again.status_code == 201
    assert again.json()["id"] != first["id"]


async def test_system_roles_keep_their_names_and_stay(client: Client) -> None:
    admin = await client.admin()
    for name in ("admin", "user"):
        role = await role_named(admin, name)
        path = f"/roles/{role['id']}"
        assert role["is_system"] is True
        for response in (await admin.delete(path), await admin.patch(path, {"name": "renamed"})):
            assert response.status_code == 409
            assert response.json()["code"] == "system_role"
        described = await admin.patch(path, {"name": name, "description": role["description"]})
        assert described.status_code == 200
    path = f"/roles/{(await role_named(admin, 'admin'))['id']}"
    stripped = await admin.patch(path, {"permissions": ["users:read"]})
    assert (stripped.status_code, stripped.json()["code"]) == (409, "system_role")
    assert (await admin.patch(path, {"permissions": list(Permission)})).status_code == 200


async def test_an_admin_holds_everything_whatever_the_table_says(client: Client) -> None:
    admin = await client.admin()
    role = await role_named(admin, "admin")
    assert role["permissions"] == list(Permission)
    async with client.database.begin() as session:
        await session.execute(delete(RolePermission).where(RolePermission.role_id == role["id"]))
    assert (await role_named(admin, "admin"))["permissions"] == list(Permission)
    assert (await admin.get("/users/me")).json()["permissions"] == list(Permission)
    assert (await admin.get("/outbox")).status_code == 200


async def test_a_permission_no_longer_known_is_passed_over(client: Client) -> None:
    admin = await client.admin()
    role = (await admin.post("/roles", {"name": "old", "permissions": ["users:read"]})).json()
    async with client.database.begin() as session:
        row = {"role_id": role["id"], "permission": "gone:long-ago"}
        await session.execute(insert(RolePermission), [row])
    assert (await role_named(admin, "old"))["permissions"] == ["users:read"]
    ana = await client.user()
    await admin.put(f"/users/{ana.id}/roles/{role['id']}")
    held = (await ana.get("/users/me")).json()["permissions"]
    assert held == ["users:read", *GRANTED_TO_USERS]


async def test_nobody_grants_or_withdraws_what_they_do_not_hold(client: Client) -> None:
    admin = await client.admin()
    writer = await client.user_with(
        Permission.roles_read, Permission.roles_write, Permission.posts_write
    )
    refused = await writer.post("/roles", {"name": "too much", "permissions": ["users:read"]})
    assert refused.status_code == 403
    assert "users:read" in refused.json()["detail"]
    own = await writer.post("/roles", {"name": "as much", "permissions": ["posts:write"]})
    assert own.status_code == 201
    widened = {"permissions": ["posts:write", "users:read"]}
    assert (await writer.patch(f"/roles/{own.json()['id']}", widened)).status_code == 403
    above = {"name": "above", "permissions": ["users:read", "posts:write"]}
    path = f"/roles/{(await admin.post('/roles', above)).json()['id']}"
    assert (await writer.patch(path, {"permissions": ["posts:write"]})).status_code == 403
    assert (await writer.delete(path)).status_code == 403
    assert (await writer.patch(path, {"permissions": ["users:read"]})).status_code == 403
    assert (await writer.patch(path, {"name": "mine now"})).status_code == 403
    assert (await admin.get(path)).json()["permissions"] == ["users:read", "posts:write"]


async def test_an_edit_of_a_role_acts_at_once(client: Client) -> None:
    """A25: for everybody who has it, on the tokens they hold."""
    admin, ana, luis = await client.admin(), await client.user(), await client.user("Luis")
    path = f"/roles/{(await role_named(admin, 'user'))['id']}"
    kept = (await admin.get(path)).json()["permissions"]
    try:
        assert (await admin.patch(path, {"permissions": []})).status_code == 200
        for person in (ana, luis):
            refused = await person.post("/posts", {"title": "T", "content": "C"})
            assert refused.status_code == 403
            assert "posts:write" in refused.json()["detail"]
        assert (await admin.patch(path, {"permissions": kept})).status_code == 200
        assert (await ana.write())["id"]
    finally:
        await admin.patch(path, {"permissions": kept})


async def test_a_deleted_role_leaves_everybody_for_good(client: Client) -> None:
    admin, ana = await client.admin(), await client.user()
    body = {"name": "reader", "permissions": ["users:read"]}
    role = (await admin.post("/roles", body)).json()
    await admin.put(f"/users/{ana.id}/roles/{role['id']}")
    assert (await admin.delete(f"/roles/{role['id']}")).status_code == 204
    assert (await ana.get("/users/me")).json()["permissions"] == GRANTED_TO_USERS
    assert (await admin.get(f"/roles/{role['id']}/users")).status_code == 404
    assert (await admin.put(f"/users/{ana.id}/roles/{role['id']}")).status_code == 404
    await admin.post("/roles", body)
    assert [role["name"] for role in (await ana.get("/users/me")).json()["roles"]] == ["user"]


async def test_members_are_counted_and_listed_while_they_live(client: Client) -> None:
    admin, ana, luis = await client.admin(), await client.user(), await client.user("Luis")
    path = f"/roles/{(await admin.post('/roles', {'name': 'club'})).json()['id']}"
    for person in (ana, luis):
        await admin.put(f"/users/{person.id}{path}")

    async def members() -> tuple[int, list[str]]:
        items = (await admin.get(f"{path}/users", params={"sort": "name"})).json()["items"]
        return (await admin.get(path)).json()["user_count"], [user["name"] for user in items]

    assert await members() == (2, ["Ana", "Luis"])
    await admin.delete(f"/users/{luis.id}")
    assert await members() == (1, ["Ana"])
    await admin.post(f"/users/{luis.id}/restore")
    assert await members() == (2, ["Ana", "Luis"])
    assert (await admin.patch(path, {"description": "Ours."})).json()["user_count"] == 2


async def test_private_fields_of_members_are_for_readers_of_users(client: Client) -> None:
    admin = await client.admin()
    ana = await client.user(phone="600 123 4567", birth_date="1990-05-17")
    path = f"/roles/{(await role_named(admin, 'user'))['id']}/users"
    seeing = await client.user_with(Permission.roles_read, Permission.users_read)
    blind = await client.user_with(Permission.roles_read)
    shown = {}
    for person in (seeing, blind):
        members = (await person.get(path)).json()["items"]
        shown[person.id] = next(user for user in members if user["id"] == ana.id)
    private = {name: ana.account[name] for name in ("email", "phone", "birth_date")}
    assert private.items() <= shown[seeing.id].items()
    assert shown[blind.id] == shown[seeing.id] | dict.fromkeys(private)
    assert PASSWORD not in str(shown)


def test_a_permission_is_declared_before_it_is_used() -> None:
    assert Permission("users:read") is Permission.users_read
    assert Permission.declare("users:read") is Permission.users_read
    with pytest.raises(ValueError, match="'users:sell' is not"):
        Permission("users:sell")


async def test_permissions_are_listed_in_the_callers_language(client: Client) -> None:
    admin = await client.admin()
    english = (await admin.get("/permissions")).json()["items"]
    assert [entry["name"] for entry in english] == sorted(Permission)
    spanish = await admin.get("/permissions", headers={"Accept-Language": "es"})
    for first, second in zip(english, spanish.json()["items"], strict=True):
        assert first["name"] == second["name"]
        assert first["description"] != second["description"]
