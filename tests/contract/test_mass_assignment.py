"""Every write refuses every field that its schema does not have."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest

from app.core.permissions import ADMIN_ROLE, USER_ROLE
from tests.contract.resources import SCENARIOS
from tests.support.client import PASSWORD, Client
from tests.support.document import documented
from tests.support.matrix import Scenario, World, snapshot
from tests.support.people import new_user

pytestmark = pytest.mark.long

# Everything that a hostile client might hope to set: columns, relationships, and habits of
# other frameworks. A body's own fields are left out for that body.
FORBIDDEN = {
    "id": 987_654_321,
    "user_id": 1,
    "owner_id": 1,
    "author_id": 1,
    "author": {"id": 1},
    "role": "admin",
    "roles": ["admin"],
    "role_ids": [1],
    "permissions": ["users:write"],
    "granted": [{"permission": "users:write"}],
    "scope": "users:write",
    "scopes": ["users:write"],
    "is_admin": True,
    "is_staff": True,
    "is_superuser": True,
    "is_system": True,
    "is_active": False,
    "email": "taken.over@example.com",
    "email_key": "taken.over@example.com",
    "live_email": "taken.over@example.com",
    "email_verified": True,
    "email_verified_at": "2026-01-01T00:00:00Z",
    "password": "Another-Horse-8",
    "new_password": "Another-Horse-8",
    "password_hash": "$argon2id$v=19$m=8,t=1,p=1$c2FsdHNhbHQ$aGFzaA",
    "hashed_password": "$argon2id$v=19$m=8,t=1,p=1$c2FsdHNhbHQ$aGFzaA",
    "token_version": 99,
    "session_id": 1,
    "version": 99,
    "created_at": "2020-01-01T00:00:00Z",
    "updated_at": "2020-01-01T00:00:00Z",
    "published_at": "2020-01-01T00:00:00Z",
    "published_order": "2020-01-01T00:00:00Z",
    "deleted_at": "2020-01-01T00:00:00Z",
    "deleted_with_author": True,
    "live_name": "admin",
    "user_count": 99,
    "tag_rows": ["a"],
    "state": "sent",
    "__class__": "User",
    "__proto__": {"is_admin": True},
}
WRITES = [
    name
    for name, (_, _, operation) in documented().operations.items()
    if "application/json" in operation.get("requestBody", {}).get("content", {})
]


def _properties_of(name: str) -> dict[str, Any]:
    document = documented().document
    content = documented().operations[name][2]["requestBody"]["content"]["application/json"]
    model = content["schema"]["$ref"].rpartition("/")[2]
    properties: dict[str, Any] = document["components"]["schemas"][model]["properties"]
    return properties


def _forbidden_to(name: str) -> dict[str, str]:
    """The fields above that are not the body's own, and how each is refused."""
    own = _properties_of(name)
    return {
        field: "read_only" if field in own else "extra_forbidden"
        for field in FORBIDDEN
        if "readOnly" in own.get(field, {"readOnly": True})
    }


def test_every_write_is_tried() -> None:
    """A20: a body that is neither JSON nor the login form would slip through."""
    with_body = {
        name
        for name, (_, _, operation) in documented().operations.items()
        if "requestBody" in operation
    }
    assert with_body == {*WRITES, "login"}
    assert all(len(_forbidden_to(name)) >= 30 for name in WRITES)


@pytest.mark.parametrize("name", WRITES)
async def test_a_body_sets_nothing_but_its_own_fields(client: Client, name: str) -> None:
    """A20: 422 for each forbidden field, the rows as they were; without it the body is good."""
    await new_user(client, roles=[ADMIN_ROLE])  # so that the other one may go
    world = World(await new_user(client, roles=[ADMIN_ROLE, USER_ROLE]), {})
    scenario = await SCENARIOS[name](world)
    good = dict(scenario.options["json"])
    before = await snapshot(client.database)
    for field, kind in _forbidden_to(name).items():
        response = await _send(world.root, name, scenario, good | {field: FORBIDDEN[field]})
        assert response.status_code == 422, field
        refused = [(error["field"], error["type"]) for error in response.json()["errors"]]
        assert refused == [(field, kind)]
    assert await snapshot(client.database) == before
    assert (await _send(world.root, name, scenario, good)).is_success


async def _send(
    who: Client, name: str, scenario: Scenario, body: dict[str, Any]
) -> httpx2.Response:
    """Past the checks of `Client`: an error names the field, and `password_hash` is one here."""
    method, template, _ = documented().operations[name]
    path = template.format(**scenario.ids)
    return await who.http.request(method, path, json=body, headers=who.headers)


async def test_unknown_fields_of_the_login_form_change_nothing(client: Client) -> None:
    """A20: RFC 6749 §3.2 has unknown parameters ignored, so what they ask for must not happen."""
    ana = await client.user()
    # `scope` is known, and may ask for less alone (tests/auth/test_token_endpoint.py).
    form = {"username": ana.email, "password": PASSWORD, "scope": ""}
    hostile = {name: str(value) for name, value in FORBIDDEN.items() if name not in form}
    response = await client.request("POST", "/auth/login", data=form | hostile)
    assert response.status_code == 200
    headers = {"Authorization": f"Bearer {response.json()['access_token']}"}
    before, after = await ana.get("/users/me"), await client.get("/users/me", headers=headers)
    assert after.json() == before.json()
    assert (await client.get("/users", headers=headers)).status_code == 403
