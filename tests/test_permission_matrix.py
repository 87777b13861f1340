"""Who may do what: one literal table of operation, actor and status, and the role behind it."""

from __future__ import annotations

import httpx2
import pytest

from app.core.permissions import Permission
from app.models.base import utc_now
from app.models.users import User
from tests.support.client import Client
from tests.support.document import documented
from tests.support.matrix import ACTORS, SCENES, World, build, call, operation_of, snapshot
from tests.support.people import holder, newcomer
from tests.support.shapes import PROBLEM, SHAPES, check_shape

pytestmark = pytest.mark.long

# A row is an operation, or an operation on a kind of target; support/matrix.py has the scenes.
# anonymous  user  owner  stranger  moderator  admin  disabled  deleted
MATRIX = {
    "register": (201, 201, 201, 201, 201, 201, 201, 201),
    "login": (200, 200, 200, 200, 200, 200, 200, 200),
    "refresh": (200, 200, 200, 200, 200, 200, 200, 200),
    "logout": (401, 204, 204, 204, 204, 204, 401, 401),
    "list_sessions": (401, 200, 200, 200, 200, 200, 401, 401),
    "end_session": (401, 404, 204, 404, 404, 404, 401, 401),
    "end_other_sessions": (401, 204, 204, 204, 204, 204, 401, 401),
    "forgot_password": (202, 202, 202, 202, 202, 202, 202, 202),
    "reset_password": (204, 204, 204, 204, 204, 204, 204, 204),
    "verify_email": (204, 204, 204, 204, 204, 204, 204, 204),
    "resend_verification": (401, 202, 202, 202, 202, 202, 401, 401),
    "get_me": (401, 200, 200, 200, 200, 200, 401, 401),
    "update_me": (401, 200, 200, 200, 200, 200, 401, 401),
    "change_password": (401, 204, 204, 204, 204, 204, 401, 401),
    "change_email": (401, 202, 202, 202, 202, 202, 401, 401),
    "delete_me": (401, 204, 204, 204, 204, 204, 401, 401),
    "list_users": (401, 403, 403, 403, 403, 200, 401, 401),
    "create_user": (401, 403, 403, 403, 403, 201, 401, 401),
    "get_user": (401, 403, 403, 403, 403, 200, 401, 401),
    "update_user": (401, 403, 403, 403, 403, 200, 401, 401),
    "delete_user": (401, 403, 403, 403, 403, 204, 401, 401),
    # The owner is in the trash, and so is their token.
    "restore_user": (401, 403, 401, 403, 403, 200, 401, 401),
    "list_user_posts": (200, 200, 200, 200, 200, 200, 401, 401),
    "list_user_roles": (401, 403, 403, 403, 403, 200, 401, 401),
    "assign_role": (401, 403, 403, 403, 403, 204, 401, 401),
    "revoke_role": (401, 403, 403, 403, 403, 204, 401, 401),
    "list_permissions": (401, 403, 403, 403, 403, 200, 401, 401),
    "list_roles": (401, 403, 403, 403, 403, 200, 401, 401),
    "create_role": (401, 403, 403, 403, 403, 201, 401, 401),
    "get_role": (401, 403, 403, 403, 403, 200, 401, 401),
    "update_role": (401, 403, 403, 403, 403, 200, 401, 401),
    "delete_role": (401, 403, 403, 403, 403, 204, 401, 401),
    "list_role_users": (401, 403, 403, 403, 403, 200, 401, 401),
    "list_posts": (200, 200, 200, 200, 200, 200, 401, 401),
    "create_post": (401, 201, 201, 403, 201, 201, 401, 401),
    "get_post": (200, 200, 200, 200, 200, 200, 401, 401),
    "get_post:draft": (404, 404, 200, 404, 200, 200, 401, 401),
    "update_post": (401, 403, 200, 403, 200, 200, 401, 401),
    "update_post:draft": (401, 404, 200, 403, 200, 200, 401, 401),
    "delete_post": (401, 403, 204, 403, 204, 204, 401, 401),
    "delete_post:draft": (401, 404, 204, 403, 204, 204, 401, 401),
    "restore_post:trash": (401, 404, 200, 403, 200, 200, 401, 401),
    "publish_post": (401, 403, 200, 403, 200, 200, 401, 401),
    "publish_post:draft": (401, 404, 200, 403, 200, 200, 401, 401),
    "unpublish_post": (401, 403, 200, 403, 200, 200, 401, 401),
    "unpublish_post:draft": (401, 404, 200, 403, 200, 200, 401, 401),
    "list_tags": (200, 200, 200, 200, 200, 200, 200, 200),
    "list_audit_events": (401, 403, 403, 403, 403, 200, 401, 401),
    "list_mails": (401, 403, 403, 403, 403, 200, 401, 401),
    "retry_mail": (401, 403, 403, 403, 403, 202, 401, 401),
    "list_keys": (200, 200, 200, 200, 200, 200, 200, 200),
    "health": (200, 200, 200, 200, 200, 200, 200, 200),
    "ready": (200, 200, 200, 200, 200, 200, 200, 200),
}
# The permission that opens an operation on somebody else's row.
GATES = {
    "list_users": Permission.users_read,
    "create_user": Permission.users_write,
    "get_user": Permission.users_read,
    "update_user": Permission.users_write,
    "delete_user": Permission.users_write,
    "restore_user": Permission.users_write,
    "list_user_roles": Permission.users_read,
    "assign_role": Permission.roles_assign,
    "revoke_role": Permission.roles_assign,
    "list_permissions": Permission.roles_read,
    "list_roles": Permission.roles_read,
    "create_role": Permission.roles_write,
    "get_role": Permission.roles_read,
    "update_role": Permission.roles_write,
    "delete_role": Permission.roles_write,
    "list_role_users": Permission.roles_read,
    "create_post": Permission.posts_write,
    "update_post": Permission.posts_moderate,
    "delete_post": Permission.posts_moderate,
    "restore_post:trash": Permission.posts_moderate,
    "publish_post": Permission.posts_moderate,
    "unpublish_post": Permission.posts_moderate,
    "list_audit_events": Permission.audit_read,
    "list_mails": Permission.outbox_read,
    "retry_mail": Permission.outbox_write,
}
# What not even an admin may do to somebody else's row.
OWNERS_ALONE = {"end_session"}
REFUSALS = {403: "insufficient_scope", 404: "not_found"}


def test_the_matrix_has_every_operation() -> None:
    """A18: an endpoint without a row fails here."""
    assert {operation_of(row) for row in MATRIX} == set(documented().operations)
    assert MATRIX.keys() == SCENES.keys()
    assert SHAPES.keys() == documented().operations.keys()


def test_every_row_has_an_admin_who_succeeds() -> None:
    """A18: a refusal counts only beside a success with the same body on the same target."""
    admin, owner = ACTORS.index("admin"), ACTORS.index("owner")
    refused = {row for row, statuses in MATRIX.items() if statuses[admin] >= 300}
    assert refused == OWNERS_ALONE
    assert all(MATRIX[row][owner] < 300 for row in OWNERS_ALONE)


@pytest.mark.parametrize("row", MATRIX)
async def test_each_actor_gets_what_the_matrix_says(client: Client, row: str) -> None:
    """A18, A21, A24: refused calls change nothing, allowed ones show the promised keys."""
    expected = dict(zip(ACTORS, MATRIX[row], strict=True))
    refused = {actor: status for actor, status in expected.items() if status >= 400}
    world = await build(client)
    # Refusals share one target, which must stay as it is; each success gets its own.
    scene = await SCENES[row](world)
    before = await snapshot(client.database)
    responses = {actor: await world.act(actor, row, scene) for actor in refused}
    assert {actor: response.status_code for actor, response in responses.items()} == refused
    assert await snapshot(client.database) == before, "a refused call changed something"
    for actor in expected.keys() - refused:
        responses[actor] = await world.act(actor, row, await SCENES[row](world))
    assert {actor: response.status_code for actor, response in responses.items()} == expected
    for actor, response in responses.items():
        _check_body(response, actor, row)


def _check_body(response: httpx2.Response, actor: str, row: str) -> None:
    shape = SHAPES[operation_of(row)]
    if not response.is_success:
        check_shape(response.json(), PROBLEM, row)
        bad_login = "not_authenticated" if actor == "anonymous" else "invalid_token"
        assert response.json()["code"] == REFUSALS.get(response.status_code, bad_login)
    elif shape is None:
        assert response.content == b""
    else:
        check_shape(response.json(), shape, row)
        assert actor != "admin" or response.json().get("items", True), "nothing to look at"


def test_the_gates_are_those_of_the_document() -> None:
    """A18: what is documented is what is tested below."""
    scopes = {
        name: {scope for entry in operation["security"] for scope in entry.get("OAuth2", [])}
        for name, (_, _, operation) in documented().operations.items()
    }
    assert {operation_of(row) for row in GATES} == {name for name in scopes if scopes[name]}
    for row, permission in GATES.items():
        own = {Permission.posts_write} if permission is Permission.posts_moderate else set()
        assert scopes[operation_of(row)] == {permission} | own


@pytest.mark.parametrize("row", GATES)
async def test_one_permission_opens_and_all_others_do_not(client: Client, row: str) -> None:
    """A18: no permission stands in for another one."""
    world = World(await client.admin(), {})
    # Nobody manages a person who can do what they cannot: hence `posts:write`, as users have.
    keyholder = await holder(client, *{GATES[row], Permission.posts_write})
    outsider = await holder(client, *frozenset(Permission) - {GATES[row]})
    scene = await SCENES[row](world)
    refused = await call(outsider, row, scene)
    allowed = await call(keyholder, row, scene)
    seen = 404 if row == "restore_post:trash" else 403
    assert (refused.status_code, allowed.is_success) == (seen, True)
    if seen == 403:
        assert GATES[row] in refused.json()["detail"], "the body names what is missing"


@pytest.mark.parametrize("permission", Permission)
async def test_a_role_counts_from_the_next_request_on(
    client: Client, permission: Permission
) -> None:
    """A25: the same token, without a new login."""
    root = await client.admin()
    person = await newcomer(client, roles=[])
    row = next(row for row, gate in GATES.items() if gate is permission)
    made = await root.post("/roles", {"name": "keyholder", "permissions": []})
    role = f"/roles/{made.json()['id']}"
    theirs = f"/users/{person.id}{role}"
    # As above: who manages users can do what these can.
    grants = {"permissions": sorted({permission, Permission.posts_write})}

    async def may() -> bool:
        scene = await SCENES[row](World(root, {}))
        response = await call(person, row, scene)
        assert response.is_success or response.status_code == 403, response.text
        return response.is_success

    assert not await may()
    assert (await root.put(theirs)).status_code == 204
    assert not await may(), "the role grants nothing yet"
    assert (await root.patch(role, grants)).status_code == 200
    assert await may(), "granted to the role"
    assert (await root.delete(theirs)).status_code == 204
    assert not await may(), "the role was taken away"
    assert (await root.put(theirs)).status_code == 204
    assert await may(), "the role was given"
    assert (await root.patch(role, {"permissions": []})).status_code == 200
    assert not await may(), "taken from the role"
    assert (await root.patch(role, grants)).status_code == 200
    assert await may(), "granted to the role again"
    assert (await root.delete(role)).status_code == 204
    assert not await may(), "the role was deleted"


@pytest.mark.parametrize("column", ["is_active", "deleted_at"])
async def test_an_account_that_is_off_refuses_a_live_session(client: Client, column: str) -> None:
    """A24: the account counts, not only that switching it off ended its sessions."""
    person = await newcomer(client)
    assert (await person.get("/users/me")).status_code == 200
    async with client.database.begin() as session:
        user = await session.get_one(User, person.id)
        setattr(user, column, {"is_active": False, "deleted_at": utc_now()}[column])
    for path in ("/users/me", "/users", "/posts"):
        response = await person.get(path)
        assert (response.status_code, response.json()["code"]) == (401, "invalid_token")
