"""Records sent back as they were read, queries of operations that take none, and which refusal is
first."""

from __future__ import annotations

from typing import Any

import pytest

from app.core.exceptions import PreconditionFailed
from app.core.permissions import Permission
from app.web.etags import require_version
from tests.contract.resources import COLLECTIONS
from tests.support.client import PASSWORD, Client, Person
from tests.support.people import new_user, user_with
from tests.support.refusals import refused

STALE = '"0123456789abcdef0123456789abcdef"'


@pytest.fixture
async def admin(client: Client) -> Person:
    return await new_user(client, ["admin", "user"])


# --- Records that are sent back --------------------------------------------------------------


async def records(admin: Person) -> dict[str, dict[str, Any]]:
    """By its path: what reading each kind of record answers."""
    user = await new_user(admin)
    created = await admin.post("/roles", {"name": "edited", "permissions": ["posts:write"]})
    role = created.json()["id"]
    await admin.put(f"/users/{user.id}/roles/{role}")
    draft = {"title": "Hello", "content": "World", "tags": ["b", "a"]}
    post = (await admin.post("/posts", draft | {"status": "published"})).json()["id"]
    paths = [f"/users/{user.id}", "/users/me", f"/roles/{role}", f"/posts/{post}"]
    system = (await admin.get("/roles", params={"page_size": 100})).json()["items"]
    paths += [f"/roles/{each['id']}" for each in system if each["is_system"]]
    return {path: (await admin.get(path)).json() for path in paths}


async def test_a_record_as_it_was_read_may_be_sent_back(admin: Person) -> None:
    for path, record in (await records(admin)).items():
        response = await admin.patch(path, record)
        assert response.status_code == 200, response.text
        assert response.json() == record, "nothing was changed"
    changed = await admin.patch(path, record | {"description": "Another one"})
    assert changed.json()["description"] == "Another one"


async def test_what_cannot_be_changed_has_to_be_as_it_is(admin: Person) -> None:
    others: dict[type, Any] = {
        int: 99_999,
        bool: None,
        str: "2001-01-01T00:00:00Z",
        list: [],
        dict: {"id": 1},
    }
    for path, record in (await records(admin)).items():
        nouns = {entry.collection: entry.noun for entry in COLLECTIONS}
        noun = "profile" if path == "/users/me" else nouns[path.rpartition("/")[0]]
        name = f"{noun.title()}Update"
        properties = admin.contract.document["components"]["schemas"][name]["properties"]
        read_only = {field for field, shown in properties.items() if "readOnly" in shown}
        assert read_only == {
            *({"id", "created_at", "updated_at"} & record.keys()),
            *(record.keys() - properties.keys()),
            *(read_only & record.keys()),
        }
        assert read_only >= {"id", "created_at", "updated_at"}
        for field in read_only:
            for value in (others.get(type(record[field]), 1), str(record[field]) + "x"):
                response = await admin.patch(path, {field: value})
                assert refused(response) == [(field, "read_only")], (field, value)
        wrong = {"id": 0, "created_at": None, "unknown": 1}
        assert refused(await admin.patch(path, wrong)) == [("unknown", "extra_forbidden")]
        del wrong["unknown"]
        assert refused(await admin.patch(path, wrong)) == [
            ("created_at", "read_only"),
            ("id", "read_only"),
        ]
        assert (await admin.get(path)).json() == record


async def test_what_is_shown_as_null_and_sent_back_stays_what_it_is(client: Client) -> None:
    """Who may change users and not read them is shown no phone and no birth date."""
    boss = await new_user(client, ["admin", "user"])
    writer = await user_with(client, Permission.users_write, Permission.posts_write)
    ana = await new_user(client)
    private = {"phone": "600123456789", "birth_date": "1990-05-17"}
    assert (await boss.patch(f"/users/{ana.id}", private)).status_code == 200
    seen = (await writer.patch(f"/users/{ana.id}", {"name": "Anita"})).json()
    assert (seen["phone"], seen["birth_date"]) == (None, None)
    back = await writer.patch(f"/users/{ana.id}", seen | {"name": "Ana"})
    assert back.status_code == 200, back.text
    kept = (await boss.get(f"/users/{ana.id}")).json()
    assert (kept["name"], {name: kept[name] for name in private}) == ("Ana", private)
    assert (await writer.patch(f"/users/{ana.id}", {"phone": "611111111111"})).status_code == 200
    assert (await boss.patch(f"/users/{ana.id}", {"birth_date": None})).status_code == 200
    changed = (await boss.get(f"/users/{ana.id}")).json()
    assert (changed["phone"], changed["birth_date"]) == ("611111111111", None)


async def test_who_may_not_change_a_role_learns_nothing_by_comparing(client: Client) -> None:
    writer = await user_with(client, Permission.roles_write)
    roles = (
        await (await new_user(client, ["admin"])).get("/roles", params={"sort": "name"})
    ).json()
    admin = next(role for role in roles["items"] if role["name"] == "admin")
    path = f"/roles/{admin['id']}"
    for body in ({"user_count": admin["user_count"]}, {"user_count": 987}):
        assert (await writer.patch(path, body)).status_code == 403
    for method in ("PATCH", "DELETE"):
        headers = {"If-Match": STALE}
        answer = await writer.request(method, path, json={"description": ""}, headers=headers)
        assert answer.status_code == 403


@pytest.mark.parametrize("name", ["alŀb", "\ufe70b", "ﬃx", "İstanbul", " Ab ", "a\u037ab"])
async def test_a_role_is_named_as_it_is_sent_back(admin: Person, name: str) -> None:
    """What folding makes of a name is judged, and folded once more it is the same."""
    created = await admin.post("/roles", {"name": name, "permissions": []})
    if created.status_code == 201:
        role = created.json()
        assert role["name"] == role["name"].strip()
        back = await admin.patch(f"/roles/{role['id']}", role)
        assert (back.status_code, back.json()) == (200, role)
    else:
        assert created.status_code == 422


async def test_what_is_compared_is_the_value_not_how_a_moment_is_written(admin: Person) -> None:
    me = (await admin.get("/users/me")).json()
    for same in ({"created_at": me["created_at"].replace("Z", "+00:00")}, {"deleted_at": None}):
        assert (await admin.patch("/users/me", same)).status_code == 200
    for other in ({"id": str(me["id"])}, {"id": float(me["id"])}, {"is_active": 1}):
        [field] = other
        assert refused(await admin.patch("/users/me", other)) == [(field, "read_only")]
    [role, *_] = me["roles"]
    for roles in ([role | {"name": "x"}], [role | {"x": 1}], [role], [*me["roles"], role]):
        assert refused(await admin.patch("/users/me", {"roles": roles})) == [("roles", "read_only")]
    nested: Any = []
    for _ in range(400):
        nested = [nested]
    assert refused(await admin.patch("/users/me", {"roles": nested})) == [("roles", "read_only")]


async def test_what_is_masked_is_compared_as_it_is_shown(client: Client) -> None:
    """A caller who cannot see an address learns nothing of it."""
    manager = await user_with(client, Permission.users_write)
    user = await new_user(client)
    path = f"/users/{user.id}"
    shown = (await manager.patch(path, {})).json()
    assert shown["email"] is None
    assert (await manager.patch(path, {"email": None})).status_code == 200
    for guess in (user.email, "other@example.com"):
        response = await manager.patch(path, {"email": guess})
        assert refused(response) == [("email", "read_only")]


async def test_a_stale_record_with_its_tag_is_412(admin: Person) -> None:
    """The caller has to read it again, which a 422 would not tell."""
    for path, record in (await records(admin)).items():
        if "title" not in record:
            continue
        tag = (await admin.get(path)).headers["etag"]
        await admin.patch(path, {"title": "Newer"})
        response = await admin.patch(path, record, headers={"If-Match": tag})
        assert response.status_code == 412
        assert ("version", "read_only") in refused(await admin.patch(path, record))


# --- Queries of operations that take none ----------------------------------------------------


async def test_an_unknown_parameter_is_refused_and_nothing_is_written(admin: Person) -> None:
    user = await new_user(admin)
    passwords = {"current_password": PASSWORD, "new_password": "Other-Pass-77"}
    before = {}
    for path, record in (await records(admin)).items():
        before[path] = record
        field = next(name for name in ("title", "description", "name") if name in record)
        changes: list[tuple[str, Any]] = [("PATCH", {field: "Changed"})]
        for method, body in [*changes, ("DELETE", None), ("GET", None)]:
            response = await admin.request(
                method,
                path,
                json=body or (path == "/users/me" and {"current_password": PASSWORD}) or None,
                params={"dry_run": "true", "other": ""},
            )
            assert refused(response) == [
                ("dry_run", "extra_forbidden"),
                ("other", "extra_forbidden"),
            ], (method, path)
    for method, path, body in (
        ("POST", "/posts", {"title": "Hello", "content": ""}),
        ("POST", "/roles", {"name": "made"}),
        ("POST", "/users", {"email": "luis@example.com", "name": "Luis"}),
        ("PUT", f"/users/{user.id}/roles/1", None),
        (
            "PUT",
            "/users/me/password",
            passwords,
        ),
        ("POST", "/auth/logout", None),
        ("POST", "/auth/password/forgot", {"email": "ana@example.com"}),
        ("DELETE", "/auth/sessions", None),
    ):
        response = await admin.request(method, path, json=body, params={"page": "1"})
        assert refused(response) == [("page", "extra_forbidden")], path
    for path, record in before.items():
        assert (await admin.get(path)).json() == record
    login = {"username": user.email, "password": PASSWORD}
    response = await admin.http.post("/api/v1/auth/login?x=1", data=login)
    assert refused(response) == [("x", "extra_forbidden")]


async def test_a_caller_without_access_does_not_learn_what_is_wrong_with_the_query(
    client: Client,
) -> None:
    user = await new_user(client)
    assert (await client.patch("/roles/1", {}, params={"x": "1"})).status_code == 401
    assert (await user.patch("/roles/1", {}, params={"x": "1"})).status_code == 403
    assert (await user.patch("/posts/99999", {}, params={"x": "1"})).status_code == 404
    assert (await client.get("/users/me", params={"x": "1"})).status_code == 401
    assert (await user.get("/users/me")).status_code == 200, "nothing is left over"


# --- Preconditions come last -----------------------------------------------------------------


async def test_an_invalid_body_is_told_before_a_stale_tag(admin: Person) -> None:
    stale = {"If-Match": STALE}
    for path, record in (await records(admin)).items():
        field = next(name for name in ("title", "description", "name") if name in record)
        wrong: list[Any] = [{field: 1}, {field: "x" * 9_999}, {"unknown": 1}, [], None]
        for body in wrong:
            response = await admin.patch(path, body, headers=stale)
            assert response.status_code == 422, (path, body)
        response = await admin.patch(path, {field: "Changed"}, headers=stale, params={"x": "1"})
        assert refused(response) == [("x", "extra_forbidden")]
        response = await admin.patch(path, {field: "Changed"}, headers=stale)
        assert response.status_code == 412
        if path != "/users/me":
            gone = await admin.delete(path, headers=stale, params={"x": "1"})
            assert refused(gone) == [("x", "extra_forbidden")]
            assert (await admin.delete(path, headers=stale)).status_code == 412
        assert (await admin.get(path)).json() == record
    assert refused(await admin.delete("/users/me", {}, headers=stale)) == [
        ("current_password", "missing")
    ]
    known = {"current_password": PASSWORD}
    assert (await admin.delete("/users/me", known, headers=stale)).status_code == 412


async def test_a_tag_made_weak_by_a_proxy_still_names_a_version(admin: Person) -> None:
    path = (await admin.post("/posts", {"title": "Hello", "content": ""})).headers["location"]
    for number in range(1, 5):
        tag = (await admin.get(path)).headers["etag"]
        weak = (f"W/{tag}", f'W/"{number}"', f'"9", W/{tag}', f"W/{STALE}, W/{tag}")[number - 1]
        body, headers = {"title": f"No. {number}"}, {"If-Match": weak}
        assert (await admin.patch(path, body, headers=headers)).status_code == 200, weak
        assert (await admin.patch(path, body, headers=headers)).status_code == 412, weak
    for none in ('w/"4"', 'W"4"', "W/4", 'W/"4', "4", ""):
        response = await admin.patch(path, {"title": "None"}, headers={"If-Match": none})
        assert response.status_code == 412, none
    # What is shown of a user has no version: a tag of another encoding is another one.
    tag = (await admin.get("/users/me")).headers["etag"]
    response = await admin.patch("/users/me", {}, headers={"If-Match": f"W/{tag}"})
    assert response.status_code == 412


def test_where_nothing_is_gathered_a_stale_version_is_refused_at_once() -> None:
    require_version('"2"', 2)
    with pytest.raises(PreconditionFailed):
        require_version('"1"', 2)
