"""Each permission allows what it names, and nothing else."""

from __future__ import annotations

import pytest
from sqlalchemy import select

from app.cli import seeding
from app.core.permissions import Permission
from app.db.engine import Database
from app.models.posts import Post
from app.models.users import User
from tests.support.client import PASSWORD, Client
from tests.support.etags import tag_shown


async def test_changing_a_user_shows_nothing_private_without_users_read(client: Client) -> None:
    """The contract: other people's e-mail, phone and birth date only with `users:read`."""
    writer = await client.user_with(Permission.users_write)
    reader = await client.user_with(Permission.users_read, Permission.users_write)
    ana = await client.register(phone="+34 600 123 456", birth_date="1990-05-17")
    for change in (("PATCH", f"/users/{ana['id']}"), ("POST", f"/users/{ana['id']}/restore")):
        hidden = (await writer.request(*change, json={})).json()
        shown = (await reader.request(*change, json={})).json()
        assert [hidden[name] for name in ("email", "phone", "birth_date")] == [None] * 3
        assert shown["email"] == ana["email"]
        assert (shown["phone"], shown["birth_date"]) == ("34600123456", "1990-05-17")


async def test_an_ordinary_user_can_be_managed_by_users_write_alone(client: Client) -> None:
    writer, ana = await client.user_with(Permission.users_write), await client.register()
    disabled = await writer.patch(f"/users/{ana['id']}", {"is_active": False})
    assert (disabled.status_code, disabled.json()["is_active"]) == (200, False)


async def test_users_write_is_no_way_to_an_administrators_account(client: Client) -> None:
    writer, admin = await client.user_with(Permission.users_write), await client.admin()
    for refused in (
        await writer.patch(f"/users/{admin.id}", {"is_active": False}),
        await writer.delete(f"/users/{admin.id}"),
    ):
        assert refused.status_code == 403
        assert "roles:write" in refused.json()["detail"]
    assert (await admin.get("/users/me")).status_code == 200


async def test_an_admin_who_cannot_log_in_does_not_count_as_one(client: Client) -> None:
    """A23: a user without a password does not count as the remaining admin."""
    admin = await client.admin()
    invited = await admin.post("/users", {"email": "invited@example.com", "name": "Invited"})
    roles = (await admin.get("/roles")).json()["items"]
    role_id = next(role["id"] for role in roles if role["name"] == "admin")
    given = await admin.put(f"/users/{invited.json()['id']}/roles/{role_id}")
    assert given.status_code == 204
    left = await admin.delete("/users/me", {"current_password": PASSWORD})
    assert (left.status_code, left.json()["code"]) == (409, "last_admin")
    other = await client.admin("Other")
    assert (await admin.delete("/users/me", {"current_password": PASSWORD})).status_code == 204
    assert (await other.get("/users/me")).status_code == 200


async def test_members_cannot_be_read_in_the_order_of_what_is_hidden(client: Client) -> None:
    """A22: a cursor of the users' listing, sorted by e-mail, is refused there."""
    admin, member = await client.admin(), await client.user_with(Permission.roles_read)
    await client.register()
    listing = await admin.get("/users", params={"sort": "email", "page_size": 1})
    roles = (await admin.get("/roles")).json()["items"]
    role_id = next(role["id"] for role in roles if role["name"] == "user")
    cursor = {"cursor": listing.json()["next_cursor"]}
    refused = await member.get(f"/roles/{role_id}/users", params=cursor)
    assert (refused.status_code, refused.json()["code"]) == (400, "invalid_cursor")


@pytest.mark.parametrize("row_id", ["%E2%80%831", "%201", "+1", "01", "1.0", "1_0", "1%00", "-0"])
async def test_a_row_has_one_path(client: Client, row_id: str) -> None:
    """A35: nothing but the plain number is an id, whatever a parser would make of it."""
    admin = await client.admin()
    for path in (f"/users/{row_id}/posts", f"/users/{row_id}/roles", f"/roles/{row_id}/users"):
        refused = await admin.get(path)
        assert refused.status_code == 422
        assert [defect["type"] for defect in refused.json()["errors"]] == ["int_parsing"]


async def test_restoring_honours_if_match(client: Client) -> None:
    ana = await client.user()
    path = f"/posts/{(await ana.write())['id']}"
    assert (await ana.delete(path)).status_code == 204
    stale = await ana.post(f"{path}/restore", headers={"If-Match": '"1"'})
    assert (stale.status_code, stale.json()["code"]) == (412, "precondition_failed")
    fresh = await ana.post(f"{path}/restore", headers={"If-Match": '"2"'})
    assert (fresh.status_code, fresh.headers["etag"]) == (200, tag_shown(fresh, 3))


async def test_search_knows_no_case_in_any_letter(client: Client) -> None:
    ana = await client.user()
    await ana.write("ÉPOCA de Ñandú")
    for q in ("época", "ñandú", "ÑANDÚ"):
        assert (await client.get("/posts", params={"q": q})).json()["total"] == 1


async def test_demo_posts_are_nobody_elses(client: Client, database: Database) -> None:
    ana = await client.user()
    await seeding.seed(database, users=2, posts=20, progress=lambda _: None)
    async with database.begin(readonly=True) as session:
        authors = select(User.email).join(Post, Post.author_id == User.id).distinct()
        emails = set(await session.scalars(authors))
    assert ana.email not in emails
    assert all(email.startswith("demo") for email in emails)
