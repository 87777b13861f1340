"""Users: their own account, and administration of others."""

from __future__ import annotations

from typing import Any

import pytest

from app.core.permissions import Permission
from tests.support.client import PASSWORD, Client, Person
from tests.support.people import GRANTED_TO_USERS


async def names(person: Person, **params: Any) -> list[str]:
    """Names of the users a listing shows, in its order."""
    response = await person.get("/users", params=params)
    assert response.status_code == 200, response.text
    return [user["name"] for user in response.json()["items"]]


async def test_ones_own_account_is_shown_whole(client: Client) -> None:
    ana = await client.user(phone="600 123 4567", birth_date="1990-05-17")
    me = (await ana.get("/users/me")).json()
    assert me == ana.account | {"permissions": GRANTED_TO_USERS}
    admin = await client.admin()
    assert (await admin.get("/users/me")).json()["permissions"] == list(Permission)


async def test_a_profile_is_changed_field_by_field(client: Client) -> None:
    ana = await client.user(phone="600 123 4567", birth_date="1990-05-17")
    before = (await ana.get("/users/me")).json()
    changed = (await ana.patch("/users/me", {"name": " Ana María ", "locale": "es"})).json()
    assert changed["updated_at"] > before["updated_at"]
    assert changed == before | {
        "name": "Ana María",
        "locale": "es",
        "updated_at": changed["updated_at"],
    }
    cleared = (await ana.patch("/users/me", {"phone": None, "birth_date": None})).json()
    assert (cleared["phone"], cleared["birth_date"]) == (None, None)
    assert (await ana.get("/users/me")).json() == cleared
    assert (await ana.patch("/users/me", {})).json() == cleared


async def test_a_profile_takes_nothing_that_is_not_its_owners_to_change(client: Client) -> None:
    """A20: unknown and privileged fields are refused, and nothing is changed."""
    ana = await client.user()
    before = (await ana.get("/users/me")).json()
    wrong: list[Any] = [
        {"is_active": False},
        {"email": "other@example.com"},
        {"roles": ["admin"]},
        {"password": PASSWORD},
        {"name": None},
        {"locale": "fr"},
        {"locale": None},
        {"phone": "1"},
        [],
    ]
    for body in wrong:
        assert (await ana.patch("/users/me", body)).status_code == 422, body
    assert (await ana.get("/users/me")).json() == before


async def test_an_account_is_deleted_with_its_password_alone(client: Client) -> None:
    ana = await client.user()
    for body, status in (({"current_password": "Wrong-7"}, 403), ({}, 422), (None, 422)):
        response = await ana.delete("/users/me", body)
        assert response.status_code == status
    wrong = await ana.delete("/users/me", {"current_password": ""})
    assert wrong.json()["code"] == "invalid_current_password"
    elsewhere = await client.person(ana.account)
    assert (await ana.delete("/users/me", {"current_password": PASSWORD})).status_code == 204
    assert (await ana.get("/users/me")).status_code == 401
    assert (await elsewhere.get("/users/me")).status_code == 401


async def test_the_last_admin_stays(client: Client) -> None:
    """A23, one after the other: every way out answers 409 while there is no other admin."""
    admin = await client.admin()
    me = f"/users/{admin.id}"
    role = next(r for r in (await admin.get(f"{me}/roles")).json()["items"] if r["is_system"])
    assert role["name"] == "admin"

    async def ways_out() -> list[tuple[int, str | None]]:
        answers = [
            await admin.delete(f"{me}/roles/{role['id']}"),
            await admin.patch(me, {"is_active": False}),
            await admin.delete(me),
            await admin.delete("/users/me", {"current_password": PASSWORD}),
        ]
        return [(answer.status_code, answer.json()["code"]) for answer in answers]

    assert await ways_out() == [(409, "last_admin")] * 4
    second = await client.admin("Second")
    assert (await admin.patch(f"/users/{second.id}", {"is_active": False})).status_code == 200
    assert await ways_out() == [(409, "last_admin")] * 4, "a disabled admin does not count"
    assert (await admin.delete(f"/users/{second.id}")).status_code == 204
    assert await ways_out() == [(409, "last_admin")] * 4, "nor does a deleted one"
    third = await client.admin("Third")
    gone = await admin.delete("/users/me", {"current_password": PASSWORD})
    assert gone.status_code == 204
    assert (await third.get("/users/me")).status_code == 200


async def test_an_admin_makes_reads_changes_and_deletes_a_user(client: Client) -> None:
    admin = await client.admin()
    body = {"email": "Luis@Example.com", "name": " Luis ", "phone": "600 123 4567", "locale": "es"}
    created = await admin.post("/users", body)
    assert created.status_code == 201
    user = created.json()
    path = f"/users/{user['id']}"
    assert created.headers["location"] == f"/api/v1{path}"
    assert (user["email"], user["name"], user["phone"]) == (
        "Luis@example.com",
        "Luis",
        "6001234567",
    )
    assert [role["name"] for role in user["roles"]] == ["user"]
    assert (await admin.get(path)).json() == user
    taken = await admin.post("/users", body | {"email": "LUIS@example.com"})
    assert (taken.status_code, taken.json()["code"]) == (409, "email_taken")
    assert (await admin.post("/users", body | {"password": PASSWORD})).status_code == 422
    changes = {"name": "Luisa", "birth_date": "1990-05-17", "is_active": False}
    changed = (await admin.patch(path, changes)).json()
    assert changed == user | changes | {"updated_at": changed["updated_at"]}
    for wrong in ({"email": "x@example.com"}, {"is_active": None}, {"version": 1}):
        assert (await admin.patch(path, wrong)).status_code == 422, wrong
    assert (await admin.get(path)).json() == changed
    assert (await admin.delete(path)).status_code == 204
    for response in (await admin.get(path), await admin.patch(path, {}), await admin.delete(path)):
        assert response.status_code == 404


async def test_a_user_out_of_reach_is_not_found(client: Client) -> None:
    admin = await client.admin()
    for user_id in (2**62, 2**63 - 1):
        assert (await admin.get(f"/users/{user_id}")).status_code == 404
        assert (await admin.post(f"/users/{user_id}/restore")).status_code == 404
    for malformed in ("0", "-1", "x", str(2**63)):
        assert (await admin.get(f"/users/{malformed}")).status_code == 422


async def test_users_are_filtered(client: Client) -> None:
    admin = await client.admin("Root")
    ana, luis = await client.user("Ana Ruiz"), await client.user("Luis Gil")
    eva = await client.user("Eva Ruiz", email="under_score%@example.com")
    await admin.patch(f"/users/{luis.id}", {"is_active": False})
    await admin.delete(f"/users/{eva.id}")
    by_name = {"sort": "name"}
    assert await names(admin, **by_name) == ["Ana Ruiz", "Luis Gil", "Root"]
    assert await names(admin, q="RUIZ") == ["Ana Ruiz"]
    assert await names(admin, q=ana.email.upper()) == ["Ana Ruiz"]
    assert await names(admin, role="admin") == ["Root"]
    assert await names(admin, role="user", **by_name) == ["Ana Ruiz", "Luis Gil", "Root"]
    assert await names(admin, role="nobody has it") == []
    assert await names(admin, is_active=False) == ["Luis Gil"]
    assert await names(admin, is_active=True, **by_name) == ["Ana Ruiz", "Root"]
    assert await names(admin, deleted=True) == ["Eva Ruiz"]
    assert await names(admin, deleted=True, q="_score%") == ["Eva Ruiz"]
    assert await names(admin, deleted=True, role="user") == ["Eva Ruiz"]
    assert await names(admin, deleted=True, q="Ana") == []
    for wrong in ({"is_active": "perhaps"}, {"deleted": 2}, {"sort": "password_hash"}):
        assert (await admin.get("/users", params=wrong)).status_code == 422, wrong


async def test_users_are_sorted_by_every_sort(client: Client) -> None:
    admin = await client.admin("Cc")
    for number, name in enumerate(("Bb", "Aa", "Bb")):
        await client.register(name, email=f"{9 - number}@example.com")
    everybody = (await admin.get("/users", params={"sort": "created_at"})).json()["items"]
    assert [user["id"] for user in everybody] == sorted(user["id"] for user in everybody)
    for field in ("created_at", "name", "email"):
        for sort in (field, f"-{field}"):
            found = (await admin.get("/users", params={"sort": sort})).json()["items"]
            expected = sorted(
                everybody, key=lambda user: (user[field], user["id"]), reverse=sort[0] == "-"
            )
            assert found == expected, sort
    default = (await admin.get("/users")).json()["items"]
    assert default == everybody[::-1]


async def test_roles_are_given_and_taken_any_number_of_times(client: Client) -> None:
    admin, ana = await client.admin(), await client.user()
    role = (await admin.post("/roles", {"name": "reader", "permissions": ["users:read"]})).json()
    theirs = f"/users/{ana.id}/roles"
    for _ in range(2):
        assert (await admin.put(f"{theirs}/{role['id']}")).status_code == 204
        held = (await admin.get(theirs)).json()["items"]
        assert [entry["name"] for entry in held] == ["reader", "user"]
    shown = (await admin.get(f"/users/{ana.id}")).json()["roles"]
    assert shown == [{"id": entry["id"], "name": entry["name"]} for entry in held]
    for _ in range(2):
        assert (await admin.delete(f"{theirs}/{role['id']}")).status_code == 204
        held = (await admin.get(theirs)).json()["items"]
        assert [entry["name"] for entry in held] == ["user"]
    for path in (f"{theirs}/{2**62}", f"/users/{2**62}/roles/{role['id']}"):
        assert (await admin.put(path)).status_code == 404
        assert (await admin.delete(path)).status_code == 404
    assert (await admin.get(f"/users/{2**62}/roles")).status_code == 404


async def test_nobody_gives_or_takes_what_they_do_not_hold(client: Client) -> None:
    admin, ana = await client.admin(), await client.user()
    assigner = await client.user_with(Permission.roles_assign, Permission.users_read)
    role_ids = [
        (await admin.post("/roles", {"name": name, "permissions": [name]})).json()["id"]
        for name in ("users:read", "users:write")
    ]
    reader, writer = [f"/users/{ana.id}/roles/{role_id}" for role_id in role_ids]
    for method in ("PUT", "DELETE"):
        refused = await assigner.request(method, writer)
        assert refused.status_code == 403
        assert refused.json()["code"] == "insufficient_scope"
        assert "users:write" in refused.json()["detail"]
    assert (await assigner.put(reader)).status_code == 204
    assert (await assigner.delete(reader)).status_code == 204
    system = (await admin.get("/roles", params={"sort": "created_at"})).json()["items"][:2]
    admin_role = next(role["id"] for role in system if role["name"] == "admin")
    for person in (ana, assigner, admin):
        refused = await assigner.put(f"/users/{person.id}/roles/{admin_role}")
        assert refused.status_code == 403
    assert (await assigner.delete(f"/users/{admin.id}/roles/{admin_role}")).status_code == 403


@pytest.mark.parametrize("deleted", [False, True], ids=["live", "deleted"])
async def test_nobody_manages_those_who_hold_more(client: Client, deleted: bool) -> None:
    admin, second, ana = await client.admin(), await client.admin(), await client.user()
    writer = await client.user_with(
        Permission.users_write, Permission.users_read, Permission.posts_write
    )
    above, below = f"/users/{second.id}", f"/users/{ana.id}"
    if deleted:
        for path, status in ((above, 403), (below, 200)):
            await admin.delete(path)
            assert (await writer.post(f"{path}/restore")).status_code == status
        return
    refused = await writer.patch(above, {"is_active": False})
    assert refused.status_code == 403
    assert refused.json()["code"] == "insufficient_scope"
    assert (await writer.delete(above)).status_code == 403
    assert (await writer.get(above)).json()["is_active"] is True
    assert (await writer.patch(below, {"is_active": False})).status_code == 200
    assert (await writer.delete(below)).status_code == 204


async def test_an_address_is_free_again_after_a_deletion(client: Client) -> None:
    """A17: the new account has nothing of the old one, which cannot come back meanwhile."""
    admin, old = await client.admin(), await client.user("Old", email="same@example.com")
    post = await old.write()
    await admin.delete(f"/users/{old.id}")
    new = await client.user("New", email="Same@Example.com")
    assert new.id != old.id
    assert (await old.get("/users/me")).status_code == 401
    assert (await new.get(f"/posts/{post['id']}")).status_code == 404
    assert (await new.get(f"/users/{new.id}/posts")).json()["items"] == []
    assert [role["name"] for role in (await new.get("/users/me")).json()["roles"]] == ["user"]
    refused = await admin.post(f"/users/{old.id}/restore")
    assert (refused.status_code, refused.json()["code"]) == (409, "email_taken")
    assert (await client.get(f"/posts/{post['id']}")).status_code == 404, "nothing came back"
    await admin.delete(f"/users/{new.id}")
    assert (await admin.post(f"/users/{old.id}/restore")).status_code == 200
    assert (await client.get(f"/posts/{post['id']}")).status_code == 200
    assert (await admin.post(f"/users/{new.id}/restore")).status_code == 409
