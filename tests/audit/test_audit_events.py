"""Each act is recorded once, with actor, subject, details, time and client address."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from app.crud import audit_events, users
from tests.support import faults, sql
from tests.support.client import PASSWORD, Client, Person
from tests.support.concurrency import at_once, statuses
from tests.support.people import new_user
from tests.support.trail import Since, fail_to_log_in, short, size

pytestmark = pytest.mark.long

USER_AGENT = "Check/1.0"
HEADERS = {"X-Request-ID": "request-of-the-act", "User-Agent": USER_AGENT}


# --- Each act once -------------------------------------------------------------------------------


async def test_an_event_says_who_did_what_to_whom_when_and_from_where(
    admin: Person, since: Since
) -> None:
    """A58"""
    ana = await new_user(admin)
    began = datetime.now(UTC)
    response = await admin.patch(f"/users/{ana.id}", {"is_active": False}, headers=HEADERS)
    assert response.status_code == 200
    (event,) = await since.take()
    assert event.pop("id") > 0
    assert began <= datetime.fromisoformat(event.pop("created_at")) <= datetime.now(UTC)
    assert event == {
        "act": "user.disabled",
        "actor_id": admin.id,
        "subject_type": "user",
        "subject_id": ana.id,
        "ip": "127.0.0.1",
        "user_agent": USER_AGENT,
        "request_id": "request-of-the-act",
        "details": {},
    }


async def test_logins_are_recorded_whether_they_succeed_or_fail(
    client: Client, admin: Person, since: Since
) -> None:
    """A58: a failed one by its account, if there is one, and never by the address given."""
    account = await client.register()
    gone = await client.register()
    assert (await admin.delete(f"/users/{gone['id']}")).status_code == 204
    await since.take()
    await client.login(account["email"])
    await fail_to_log_in(client, account["email"])
    await fail_to_log_in(client, "nobody@example.com")
    await fail_to_log_in(client, gone["email"], PASSWORD)
    ana, whom = account["id"], ("user", account["id"])
    (login, *failed) = await since.summaries()
    assert login[:3] == ("login.succeeded", ana, whom)
    assert login[3].keys() == {"session_id"}
    nobody: tuple[Any, ...] = ("login.failed", None, (None, None), {})
    assert failed == [("login.failed", None, whom, {}), nobody, nobody]


async def test_a_failed_login_costs_the_same_for_every_reason(client: Client) -> None:
    """A30: the same statements, one transaction that writes, one commit."""
    account, disabled = await client.register(), await client.register()
    admin = await client.admin()
    await admin.patch(f"/users/{disabled['id']}", {"is_active": False})
    costs = []
    for email in (account["email"], "nobody@example.com", disabled["email"]):
        with (
            sql.watched(client.database) as sent,
            faults.sabotaged_commits(client.database, lambda: None) as commits,
        ):
            await fail_to_log_in(client, email)
        costs.append(([each.text for each in sent], commits.hits))
    assert costs[0] == costs[1] == costs[2]
    assert [each.split()[0] for each in costs[0][0]] == ["SELECT", "SELECT", "INSERT"]
    assert costs[0][1] == 1


async def test_acts_on_accounts_are_recorded(client: Client, admin: Person, since: Since) -> None:
    """A58: fields by their names, never by their values; what changes nothing is no act."""
    ana = (await client.register("Ana"))["id"]
    body = {"email": "bea@example.com", "name": "Bea"}
    bea = (await admin.post("/users", body)).json()["id"]
    for change in ({"name": "Anna", "is_active": False}, {"name": "Anna"}, {"is_active": True}):
        assert (await admin.patch(f"/users/{ana}", change)).status_code == 200
    assert (await admin.delete(f"/users/{ana}")).status_code == 204
    for _ in range(2):
        assert (await admin.post(f"/users/{ana}/restore")).status_code == 200
    assert await since.summaries() == [
        ("user.registered", ana, ("user", ana), {}),
        ("user.created", admin.id, ("user", bea), {"roles": ["user"]}),
        ("user.disabled", admin.id, ("user", ana), {}),
        ("user.updated", admin.id, ("user", ana), {"fields": ["name"]}),
        ("user.enabled", admin.id, ("user", ana), {}),
        ("user.deleted", admin.id, ("user", ana), {}),
        ("user.restored", admin.id, ("user", ana), {}),
    ]


async def test_acts_on_ones_own_account_are_recorded(client: Client, since: Since) -> None:
    ana = await new_user(client)
    profile = {"name": "Anna", "phone": "600123456789", "locale": "es"}
    assert (await ana.patch("/users/me", profile)).status_code == 200
    assert (await ana.patch("/users/me", profile)).status_code == 200
    assert (await ana.delete("/users/me", {"current_password": PASSWORD})).status_code == 204
    assert await since.summaries() == [
        ("user.updated", ana.id, ("user", ana.id), {"fields": ["locale", "name", "phone"]}),
        ("user.deleted", ana.id, ("user", ana.id), {}),
    ]


async def test_acts_on_roles_are_recorded(admin: Person, since: Since) -> None:
    body = {"name": "Editors", "permissions": ["users:read", "posts:write"]}
    role = (await admin.post("/roles", body)).json()
    change = {"permissions": ["roles:read", "posts:write"], "description": "Those who edit"}
    for _ in range(2):
        assert (await admin.patch(f"/roles/{role['id']}", change)).status_code == 200
    assert (await admin.delete(f"/roles/{role['id']}")).status_code == 204
    whom, named = ("role", role["id"]), {"name": role["name"]}
    granted = {"granted": ["posts:write", "users:read"]}
    changed = {"fields": ["description"], "granted": ["roles:read"], "revoked": ["users:read"]}
    assert await since.summaries() == [
        ("role.created", admin.id, whom, named | granted),
        ("role.updated", admin.id, whom, named | changed),
        ("role.deleted", admin.id, whom, named),
    ]


async def test_a_role_given_or_taken_twice_is_recorded_once(admin: Person, since: Since) -> None:
    """A58: PUT and DELETE are idempotent, and so is what they leave in the trail."""
    ana = await new_user(admin)
    role = (await admin.post("/roles", {"name": "editors"})).json()
    await since.take()
    path = f"/users/{ana.id}/roles/{role['id']}"
    puts = await at_once(admin.put(path) for _ in range(4))
    assert statuses(puts) == {204: 4}
    deletes = await at_once(admin.delete(path) for _ in range(4))
    assert statuses(deletes) == {204: 4}
    details = {"role_id": role["id"], "role": "editors"}
    assert await since.summaries() == [
        ("role.granted", admin.id, ("user", ana.id), details),
        ("role.revoked", admin.id, ("user", ana.id), details),
    ]


async def test_an_account_made_on_the_command_line_is_recorded(admin: Person, since: Since) -> None:
    async with admin.database.begin() as session:
        created = await users.create_admin(
            session, email="x@example.com", name="X", password_hash="-"
        )
    (event,) = await since.take()
    expected = ("user.created", None, ("user", created.id), {"roles": ["admin", "user"]})
    assert short(event) == expected
    assert (event["ip"], event["user_agent"], event["request_id"]) == ("", "", "")


# --- No act, no event ----------------------------------------------------------------------------


async def test_what_was_not_done_is_not_recorded(client: Client, admin: Person) -> None:
    """A58: conflicts, bad input, unknown rows, a commit that fails."""
    account = {"email": admin.email, "name": "Twin", "password": "Xk7-mQvw-pz"}
    before = await size(client.database)
    assert (await client.post("/auth/register", account)).status_code == 409
    assert (await client.post("/auth/register", {"email": "x"})).status_code == 422
    assert (await admin.post("/roles", {"name": "admin"})).status_code == 409
    assert (await admin.delete(f"/users/{admin.id}")).status_code == 409
    assert (await admin.patch("/users/999999999", {"name": "Nobody"})).status_code == 404
    account["email"] = "new@example.com"
    with faults.failing_commits(client.database, faults.GONE[client.database.dialect]) as commits:
        assert (await client.post("/auth/register", account)).status_code == 503
        form = {"username": admin.email, "password": PASSWORD}
        assert (await client.request("POST", "/auth/login", data=form)).status_code == 503
    assert commits.hits == 2
    assert await size(client.database) == before


async def test_an_act_without_its_event_is_not_done(
    admin: Person, since: Since, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A58: one transaction: what cannot be written down does not happen."""
    monkeypatch.setattr(audit_events, "_named", lambda _: ("user", object()))
    ana = await new_user(admin)
    assert (await admin.delete(f"/users/{ana.id}")).status_code >= 500
    monkeypatch.undo()
    assert (await ana.get("/users/me")).status_code == 200
    assert await since.take() == []
