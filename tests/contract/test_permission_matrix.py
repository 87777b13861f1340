"""The permission matrix: the status of every operation for every actor."""

from __future__ import annotations

import httpx2
import pytest

from app.core.permissions import Permission
from app.models.base import utc_now
from app.models.users import User
from tests.contract.resources import CASES, REQUIRED_PERMISSION, RESPONSE_SHAPES, SCENARIOS, missing
from tests.support.client import Client
from tests.support.document import documented
from tests.support.matrix import ACTORS, World, build, call, operation_of, snapshot
from tests.support.people import new_user, user_with
from tests.support.response_shapes import PROBLEM, check_shape

pytestmark = pytest.mark.long

MATRIX = {row: case.statuses for row, case in CASES.items()}
# What not even an admin may do to another user's row.
OWNERS_ALONE = {"end_session"}
REFUSALS = {403: "insufficient_scope", 404: "not_found"}


def test_the_matrix_has_every_operation() -> None:
    """A18: an endpoint without a case fails here, with a message that says what to add."""
    assert missing() == []
    assert {operation_of(row) for row in MATRIX} == set(documented().operations)
    assert {len(statuses) for statuses in MATRIX.values()} == {len(ACTORS)}


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
    scenario = await SCENARIOS[row](world)
    before = await snapshot(client.database)
    responses = {actor: await world.act(actor, row, scenario) for actor in refused}
    assert {actor: response.status_code for actor, response in responses.items()} == refused
    assert await snapshot(client.database) == before, "a refused call changed something"
    for actor in expected.keys() - refused:
        responses[actor] = await world.act(actor, row, await SCENARIOS[row](world))
    assert {actor: response.status_code for actor, response in responses.items()} == expected
    for actor, response in responses.items():
        _check_body(response, actor, row)


def _check_body(response: httpx2.Response, actor: str, row: str) -> None:
    shape = RESPONSE_SHAPES[operation_of(row)]
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
    assert {operation_of(row) for row in REQUIRED_PERMISSION} == {
        name for name in scopes if scopes[name]
    }
    for row, permission in REQUIRED_PERMISSION.items():
        resource, _, action = permission.partition(":")
        own = {f"{resource}:write"} if action == "moderate" else set()
        assert scopes[operation_of(row)] == {permission} | own


@pytest.mark.parametrize("row", REQUIRED_PERMISSION)
async def test_one_permission_opens_and_all_others_do_not(client: Client, row: str) -> None:
    """A18: no permission stands in for another one."""
    world = World(await client.admin(), {})
    # Nobody manages a person who can do what they cannot: hence `posts:write`, as users have.
    keyholder = await user_with(client, *{REQUIRED_PERMISSION[row], Permission.posts_write})
    outsider = await user_with(client, *frozenset(Permission) - {REQUIRED_PERMISSION[row]})
    scenario = await SCENARIOS[row](world)
    refused = await call(outsider, row, scenario)
    allowed = await call(keyholder, row, scenario)
    seen = 404 if row == "restore_post:trash" else 403
    assert (refused.status_code, allowed.is_success) == (seen, True)
    if seen == 403:
        assert REQUIRED_PERMISSION[row] in refused.json()["detail"], (
            "the body names what is missing"
        )


@pytest.mark.parametrize("permission", [*Permission])
async def test_a_role_counts_from_the_next_request_on(
    client: Client, permission: Permission
) -> None:
    """A25: the same token, without a new login."""
    root = await client.admin()
    person = await new_user(client, roles=[])
    row = next(row for row, gate in REQUIRED_PERMISSION.items() if gate is permission)
    created = await root.post("/roles", {"name": "keyholder", "permissions": []})
    role = f"/roles/{created.json()['id']}"
    theirs = f"/users/{person.id}{role}"
    # As above: who manages users can do what these can.
    grants = {"permissions": sorted({permission, Permission.posts_write})}

    async def may() -> bool:
        scenario = await SCENARIOS[row](World(root, {}))
        response = await call(person, row, scenario)
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
    person = await new_user(client)
    assert (await person.get("/users/me")).status_code == 200
    async with client.database.begin() as session:
        user = await session.get_one(User, person.id)
        setattr(user, column, {"is_active": False, "deleted_at": utc_now()}[column])
    for path in ("/users/me", "/users", "/posts"):
        response = await person.get(path)
        assert (response.status_code, response.json()["code"]) == (401, "invalid_token")
