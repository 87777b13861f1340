"""ETag and If-Match of users and roles; `tests/posts/test_posts.py` has those of posts."""

from __future__ import annotations

from typing import Any

import pytest

from app.core.permissions import Permission
from tests.support.client import PASSWORD, Client, Person
from tests.support.people import new_user, user_with

STALE = '"0123456789abcdef0123456789abcdef"'


@pytest.fixture
async def admin(client: Client) -> Person:
    return await new_user(client, ["admin"])


async def tag_of(person: Client, path: str) -> str:
    """The tag a read gives; twice the same."""
    first, second = await person.get(path), await person.get(path)
    tag: str = first.headers["etag"]
    assert second.headers["etag"] == tag
    assert len(tag) == 34
    assert tag[0] + tag[-1] == '""'
    return tag


async def things(admin: Person) -> list[tuple[str, dict[str, Any]]]:
    """A user, oneself and a role, each with a change."""
    user = await new_user(admin)
    role = await admin.post("/roles", {"name": "edited"})
    return [
        (f"/users/{user.id}", {"name": "Changed"}),
        ("/users/me", {"name": "Changed"}),
        (role.headers["location"].removeprefix("/api/v1"), {"description": "Changed"}),
    ]


async def test_a_tag_is_the_same_on_reads_and_writes_and_changes_with_the_resource(
    admin: Person,
) -> None:
    for path, change in await things(admin):
        first = await tag_of(admin, path)
        unchanged = await admin.patch(path, {})
        assert unchanged.headers["etag"] == first
        assert unchanged.content == (await admin.get(path)).content
        changed = await admin.patch(path, change)
        assert changed.headers["etag"] == await tag_of(admin, path) != first
        assert changed.content == (await admin.get(path)).content


async def test_what_else_is_shown_changes_the_tag_too(admin: Person) -> None:
    """Roles of a user, what they permit, how many have a role: a strong tag covers all of it."""
    user = await new_user(admin, [])
    role = (await admin.post("/roles", {"name": "shown"})).json()
    path, of_role = f"/users/{user.id}", f"/roles/{role['id']}"
    seen = [await tag_of(admin, path)]
    counts, mine = [await tag_of(admin, of_role)], [await tag_of(user, "/users/me")]
    await admin.put(f"{path}/roles/{role['id']}")
    for change in ({"name": "renamed"}, {"permissions": ["posts:write"]}):
        seen.append(await tag_of(admin, path))
        counts.append(await tag_of(admin, of_role))
        mine.append(await tag_of(user, "/users/me"))
        await admin.patch(of_role, change)
    mine.append(await tag_of(user, "/users/me"))
    counts.append(await tag_of(admin, of_role))
    assert len(set(mine)) == len(mine)
    assert len(set(counts)) == len(counts)
    assert len(set(seen)) == len(seen)
    assert await tag_of(admin, path) == seen[-1] != seen[1]
    await admin.delete(f"{path}/roles/{role['id']}")
    assert await tag_of(admin, path) == seen[0], "as it was"


async def test_if_match_names_what_is_to_be_changed(admin: Person) -> None:
    for path, change in await things(admin):
        tag = await tag_of(admin, path)
        wrong = [STALE, f"W/{tag}", tag.strip('"'), tag[:-1], '""', "", ",", f"{STALE}, W/{tag}"]
        for given in (*wrong, '"1"', "**", "null"):
            response = await admin.patch(path, change, headers={"If-Match": given})
            assert response.status_code == 412, given
            assert response.json()["code"] == "precondition_failed"
        assert await tag_of(admin, path) == tag
        for given in (tag, "*"):
            response = await admin.patch(path, change, headers={"If-Match": given})
            assert response.status_code == 200, given
        tag = response.headers["etag"]
        for given in (f"{STALE}, {tag}", f"{tag},{STALE}", f" {tag} "):
            response = await admin.patch(path, {}, headers={"If-Match": given})
            assert response.status_code == 200, given


async def test_two_lines_are_one_list(admin: Person) -> None:
    for path, change in await things(admin):
        tag = await tag_of(admin, path)
        for second, status in (('"1"', 412), (tag, 200)):
            headers = [*admin.headers.items(), ("If-Match", STALE), ("If-Match", second)]
            response = await admin.http.patch(f"/api/v1{path}", json=change, headers=headers)
            assert response.status_code == status


async def test_a_stale_tag_keeps_a_user_from_being_deleted_and_restored(admin: Person) -> None:
    user = await new_user(admin)
    path, stale = f"/users/{user.id}", {"If-Match": STALE}
    tag = await tag_of(admin, path)
    assert (await admin.delete(path, headers=stale)).status_code == 412
    assert (await admin.post(f"{path}/restore", headers=stale)).status_code == 412
    live = await admin.post(f"{path}/restore", headers={"If-Match": tag})
    assert (live.status_code, live.headers["etag"]) == (200, tag), "a live one stays as it is"
    assert (await admin.delete(path, headers={"If-Match": tag})).status_code == 204
    for given, status in ((tag, 412), ("*", 200)):
        response = await admin.post(f"{path}/restore", headers={"If-Match": given})
        assert response.status_code == status, "in the trash it is not as it was"
    assert response.headers["etag"] == await tag_of(admin, path)


async def test_a_stale_tag_keeps_a_role_from_being_deleted(admin: Person) -> None:
    created = await admin.post("/roles", {"name": "gone"})
    path = created.headers["location"]
    assert (await admin.delete(path, headers={"If-Match": STALE})).status_code == 412
    tag = {"If-Match": created.headers["etag"]}
    assert (await admin.delete(path, headers=tag)).status_code == 204
    assert (await admin.get(path)).status_code == 404


async def test_a_stale_tag_keeps_an_account_from_being_deleted(client: Client) -> None:
    ana = await new_user(client)
    body = {"current_password": PASSWORD}
    stale = await ana.delete("/users/me", body, headers={"If-Match": STALE})
    assert stale.status_code == 412
    wrong = await ana.delete("/users/me", {"current_password": "no"}, headers={"If-Match": STALE})
    assert wrong.status_code == 403, "nothing is revealed without the password"
    tag = await tag_of(ana, "/users/me")
    assert (await ana.delete("/users/me", body, headers={"If-Match": tag})).status_code == 204


async def test_a_tag_tells_nothing_that_its_reader_does_not_see(client: Client) -> None:
    """A birth date has few values: trying them all would reveal it from a tag computed from it."""
    blind = await user_with(client, Permission.users_write)
    admin = await new_user(client, ["admin"])
    user = await new_user(client)
    path = f"/users/{user.id}"
    known = await tag_of(admin, path)
    shown = await blind.patch(path, {})
    assert shown.json()["email"] is None
    tag = shown.headers["etag"]
    assert tag != known
    assert (await blind.patch(path, {}, headers={"If-Match": known})).status_code == 412
    assert (await blind.patch(path, {}, headers={"If-Match": tag})).status_code == 200
    await admin.patch(path, {"birth_date": "1990-05-17"})
    private = (await blind.patch(path, {})).json()
    assert private["birth_date"] is None


async def test_who_may_not_change_it_is_not_told_whether_it_changed(client: Client) -> None:
    """A19"""
    ana, admin = await new_user(client), await new_user(client, ["admin"])
    writer = await user_with(client, Permission.users_write)
    role = (await admin.get(f"/users/{admin.id}/roles")).json()["items"][0]["id"]
    stale = {"If-Match": STALE}
    for path in (f"/users/{admin.id}", f"/roles/{role}"):
        assert (await ana.patch(path, {}, headers=stale)).status_code == 403
    assert (await writer.patch(f"/users/{admin.id}", {}, headers=stale)).status_code == 403
    for path in ("/users/999999999", "/roles/999999999"):
        assert (await admin.patch(path, {}, headers=stale)).status_code == 404
