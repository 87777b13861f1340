"""Denied requests in the audit trail: committed apart from the request, and rate-bounded."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from app.core.permissions import Permission
from tests.support import faults
from tests.support.client import API, PASSWORD, Client, Person
from tests.support.concurrency import at_once, statuses
from tests.support.listings import page
from tests.support.people import new_user, new_users, user_with
from tests.support.trail import Since


async def test_denials_are_recorded_and_survive_the_request(admin: Person, since: Since) -> None:
    """A58: by the required permission, by the row, by the caller's rights; read or write."""
    writer, other = await new_users(admin, ["user"], ["user"])
    assigner = await user_with(admin, Permission.roles_assign, Permission.roles_write)
    post = await other.write()
    admins = (await page(admin, "/roles"))["items"]
    role_id = next(role["id"] for role in admins if role["name"] == "admin")
    await since.take()
    calls = [
        await writer.get("/users"),
        await writer.patch(f"/posts/{post['id']}", {"title": "Mine"}),
        await writer.delete(f"/users/{other.id}"),
        await assigner.put(f"/users/{assigner.id}/roles/{role_id}"),
        await assigner.post("/roles", {"name": "top", "permissions": ["users:write"]}),
        await writer.request("DELETE", "/users/me", json={"current_password": "Wrong-Horse-7"}),
    ]
    assert {response.status_code for response in calls} == {403}
    every = ", ".join(sorted(set(Permission) - {Permission.roles_assign, Permission.roles_write}))
    assert await since.summaries() == [
        _denied(writer, f"GET {API}/users", "users:read"),
        _denied(writer, f"PATCH {API}/posts/{{post_id}}", "posts:moderate", post_id=post["id"]),
        _denied(writer, f"DELETE {API}/users/{{user_id}}", "users:write", user_id=other.id),
        _denied(
            assigner,
            f"PUT {API}/users/{{user_id}}/roles/{{role_id}}",
            every,
            user_id=assigner.id,
            role_id=role_id,
        ),
        _denied(assigner, f"POST {API}/roles", "users:write"),
        (
            "access.denied",
            writer.id,
            (None, None),
            {"operation": f"DELETE {API}/users/me", "reason": "invalid_current_password"},
        ),
    ]


def _denied(who: Person, operation: str, permission: str, **ids: int) -> tuple[Any, ...]:
    subject = ("user", ids["user_id"]) if "user_id" in ids else (None, None)
    details = {"operation": operation, "reason": "insufficient_scope", "permission": permission}
    return "access.denied", who.id, subject, details | ids


async def test_what_is_no_id_is_not_kept(admin: Person, since: Since) -> None:
    ana = await new_user(admin)
    for path in ("/users/whatever-1", f"/roles/{2**63}", "/users/0"):
        assert (await ana.get(path)).status_code == 403
    assert [each[2:] for each in await since.summaries()] == [
        ((None, None), _denied(ana, f"GET {API}/users/{{user_id}}", "users:read")[3]),
        ((None, None), _denied(ana, f"GET {API}/roles/{{role_id}}", "roles:read")[3]),
    ]


async def test_refusals_of_nobody_in_particular_are_not_recorded(
    client: Client, admin: Person, since: Since
) -> None:
    """401 is no denial of anybody; nor is a registration that is switched off."""
    assert (await client.get("/users")).status_code == 401
    settings = client.app.state.settings
    client.app.state.settings = settings.model_copy(update={"registration_enabled": False})
    try:
        body = {"email": "new@example.com", "name": "New", "password": PASSWORD}
        assert (await admin.post("/auth/register", body)).status_code == 403
    finally:
        client.app.state.settings = settings
    assert await since.take() == []


async def test_a_flood_of_denials_is_recorded_once_a_minute(
    client: Client, admin: Person, since: Since, monkeypatch: pytest.MonkeyPatch
) -> None:
    ana, eva = await new_users(admin, ["user"], ["user"])
    denials = client.app.state.access_denied_log
    responses = await at_once(ana.get("/users") for _ in range(20))
    responses += await at_once(eva.get("/users") for _ in range(20))
    assert statuses(responses) == {403: 40}
    assert sorted(event["actor_id"] for event in await since.take()) == [ana.id, eva.id]
    for key in denials._quiet_until:
        denials._quiet_until[key] -= 60
    await ana.get("/users")
    assert len(await since.take()) == 1
    # However many they are, they are not all remembered.
    monkeypatch.setattr("app.web.access_denied._MAX_REMEMBERED", 1)
    await ana.get("/roles")
    assert len(denials._quiet_until) == 1


async def test_a_denial_that_cannot_be_written_is_still_a_403(
    admin: Person, since: Since, caplog: pytest.LogCaptureFixture
) -> None:
    """A59: the refusal stands, the loss is logged, and the next one is tried again."""
    ana, database = await new_user(admin), admin.database
    with faults.failing_writes(database, faults.GONE[database.dialect]) as writes:
        assert (await ana.get("/users")).status_code == 403
    assert writes.hits == 1
    (line,) = [record for record in caplog.records if record.getMessage() == "audit event lost"]
    assert (line.name, line.levelname) == ("app.audit", "ERROR")
    assert await since.take() == []
    assert (await ana.get("/users")).status_code == 403
    assert len(await since.take()) == 1


async def test_a_denial_that_takes_too_long_is_still_a_403(
    admin: Person, since: Since, monkeypatch: pytest.MonkeyPatch
) -> None:
    ana = await new_user(admin)
    monkeypatch.setattr("app.crud.audit_events.RECORD_SECONDS", 0.05)
    begin = admin.database.begin

    def slow(**options: Any) -> Any:
        class Slow:
            async def __aenter__(self) -> None:
                await asyncio.sleep(5)

            async def __aexit__(self, *_: object) -> None: ...

        return begin(**options) if options else Slow()

    with monkeypatch.context() as patch:
        patch.setattr(admin.database, "begin", slow)
        assert (await ana.get("/users")).status_code == 403
    assert await since.take() == []
