"""Storage of the audit trail: bounded, append-only, free of secrets, readable by permission."""

from __future__ import annotations

import json
import unicodedata
from datetime import datetime, timedelta
from typing import Any

import httpx2
import pytest
from sqlalchemy import delete, insert, select, text, update

from app.core.permissions import Permission
from app.db import retention
from app.models.audit_events import AuditAct, AuditEvent
from app.models.base import utc_now
from app.tasks import retention as purging
from tests.support import sql
from tests.support.canaries import CANARY
from tests.support.client import API, PASSWORD, Client, Person
from tests.support.listings import page
from tests.support.people import granting, new_user, new_users, user_with
from tests.support.trail import Since, events, fail_to_log_in, size

# --- What is kept --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "given",
    [
        b"x" * 5_000,
        b"Agente \xd1and\xfa",
        b"a\0b",
        b"\x1b[31m\x9b",
        bytes(range(128, 256)),
    ],
    ids=["long", "latin-1", "nul", "escapes", "upper half"],
)
async def test_a_hostile_user_agent_is_stored_bounded(
    client: Client, since: Since, given: bytes
) -> None:
    account = await client.register()
    form = {"username": account["email"], "password": PASSWORD}
    request = client.http.build_request("POST", f"{API}/auth/login", data=form)
    del request.headers["user-agent"]
    request.headers = httpx2.Headers([*request.headers.raw, (b"user-agent", given)])
    assert (await client.http.send(request)).status_code == 200
    event = (await since.take())[-1]
    assert event["act"] == "login.succeeded"
    kept = event["user_agent"]
    assert 0 < len(kept) <= 255
    assert not any(unicodedata.category(character) == "Cc" for character in kept)


async def test_no_secret_is_kept(client: Client, admin: Person, since: Since) -> None:
    """A57: neither passwords nor tokens nor addresses nor what fields were set to."""
    email = "canary.kiwi@example.com"
    account = await client.register("Canary Kiwi", email=email, password=CANARY, phone="6001234567")
    ana = await client.person(account, CANARY)
    await fail_to_log_in(client, email, f"{CANARY}!")
    await fail_to_log_in(client, f"not.{email}", CANARY)
    await ana.patch("/users/me", {"name": "Kiwi Secret", "phone": "6007654321"})
    await ana.get(f"/users?q={CANARY}")
    wrong = {"current_password": f"{CANARY}?"}
    assert (await ana.delete("/users/me", wrong)).status_code == 403
    found = await since.take()
    assert len(found) == 7
    kept = json.dumps(found)
    for secret in (CANARY, email, "kiwi", "Kiwi", "1234567", "7654321", ana.token[-20:]):
        assert secret not in kept, secret
    async with admin.database.begin(readonly=True) as session:
        details = "".join(map(str, await session.scalars(select(AuditEvent.details))))
    assert CANARY not in details


# --- Only ever added to --------------------------------------------------------------------------


async def test_no_call_changes_the_trail(admin: Person) -> None:
    """A58: it can be read, and nothing else, by anybody."""
    before = await size(admin.database)
    (first, *_) = await events(await admin.admin())
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        assert (await admin.request(method, "/audit-events")).status_code == 405
        path = f"/audit-events/{first['id']}"
        assert (await admin.request(method, path)).status_code == 404
    paths = [path for path in admin.contract.document["paths"] if "audit" in path]
    assert paths == [f"{API}/audit-events"]
    assert admin.contract.document["paths"][paths[0]].keys() == {"get"}
    assert await size(admin.database) > before


async def test_the_orm_changes_and_deletes_no_event(client: Client) -> None:
    """A58: a slip in the code is an error, not a gap in the trail."""
    await client.register()
    database, refused = client.database, pytest.raises(RuntimeError, match="only ever added to")
    with refused:
        async with database.begin() as session:
            (await session.scalars(select(AuditEvent))).one().act = AuditAct.user_deleted
    with refused:
        async with database.begin() as session:
            await session.delete((await session.scalars(select(AuditEvent))).one())
    statements: list[Any] = [update(AuditEvent).values(ip="-"), delete(AuditEvent)]
    for statement in statements:
        with refused:
            async with database.begin() as session:
                await session.execute(statement)
    async with database.begin(readonly=True) as session:
        event = (await session.scalars(select(AuditEvent))).one()
    assert (event.act, event.ip) == (AuditAct.user_registered, "127.0.0.1")


async def test_events_outlive_those_they_are_about(admin: Person, since: Since) -> None:
    ana = await new_user(admin)
    assert (await admin.delete(f"/users/{ana.id}")).status_code == 204
    async with admin.database.begin() as session:
        await session.execute(text("DELETE FROM sessions WHERE user_id = :id"), {"id": ana.id})
        await session.execute(text("DELETE FROM user_roles WHERE user_id = :id"), {"id": ana.id})
        await session.execute(text("DELETE FROM users WHERE id = :id"), {"id": ana.id})
    assert await since.summaries() == [("user.deleted", admin.id, ("user", ana.id), {})]


async def test_old_events_are_purged_batch_by_batch(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(purging, "MAX_BATCH", 2)
    moment = utc_now() - timedelta(days=10)
    await add_events(client, *(moment + timedelta(seconds=n) for n in range(5)))
    [rule] = [rule for rule in retention.rules() if rule.name == "events"]
    limits = retention.Limits(moment, events=moment + timedelta(seconds=3))
    batches: list[int] = []
    for gone in (3, 0):
        done = await purging.delete_expired(
            client.database, [rule], limits, lambda _, count: batches.append(count)
        )
        assert done.counts["events"] == gone
    assert batches == [2, 1]
    async with client.database.begin(readonly=True) as session:
        left = set(await session.scalars(select(AuditEvent.created_at)))
    assert left == {moment + timedelta(seconds=3), moment + timedelta(seconds=4)}


async def add_events(client: Client, *moments: datetime) -> None:
    async with client.database.begin() as session:
        session.add_all(
            [AuditEvent(act=AuditAct.login_failed, created_at=moment) for moment in moments]
        )


# --- The listing ---------------------------------------------------------------------------------


async def test_the_trail_is_for_those_who_may_read_it(client: Client, admin: Person) -> None:
    reader = await user_with(client, Permission.audit_read)
    everything_else = [each for each in Permission if each is not Permission.audit_read]
    others = await new_users(client, ["user"], [granting(*everything_else)])
    assert (await client.get("/audit-events")).status_code == 401
    for other in others:
        response = await other.get("/audit-events")
        assert (response.status_code, response.json()["code"]) == (403, "insufficient_scope")
        assert "audit:read" in response.json()["detail"]
    for person in (reader, admin):
        assert len(await events(person)) == len(others)


async def test_the_trail_is_filtered_and_sorted(client: Client, admin: Person) -> None:
    ana = await client.user()
    role = (await admin.post("/roles", {"name": "editors"})).json()
    await admin.patch(f"/users/{ana.id}", {"name": "Anna"})
    everything = await events(admin)
    assert [event["act"] for event in everything] == [
        "user.registered",
        "login.succeeded",
        "role.created",
        "user.updated",
    ]
    middle = everything[2]["created_at"]

    async def found(**filters: Any) -> list[int]:
        wanted = {event["id"]: place for place, event in enumerate(everything)}
        return [wanted[event["id"]] for event in await events(admin, **filters)]

    assert await found(act="role.created") == [2]
    assert await found(actor_id=ana.id) == [0, 1]
    assert await found(subject_type="user", subject_id=ana.id) == [0, 1, 3]
    assert await found(subject_type="role", subject_id=role["id"]) == [2]
    assert await found(subject_type="session") == []
    assert await found(created_from=middle) == [2, 3]
    assert await found(created_to=middle) == [0, 1]
    assert await found(actor_id=admin.id, subject_type="user", created_from=middle) == [3]
    assert await found(sort="created_at") == [3, 2, 1, 0]
    for wrong in ({"act": "act"}, {"subject_type": "post"}, {"actor_id": 0}, {"sort": "-id"}):
        assert (await admin.get("/audit-events", params=wrong)).status_code == 422


def _of_many(number: int) -> dict[str, Any]:
    """One event in ten is of one kind."""
    is_that = number % 10 == 0
    return {
        "act": AuditAct.login_failed if is_that else AuditAct.login_succeeded,
        "created_at": utc_now() - timedelta(seconds=number),
        "actor_id": 7 if is_that else number + 10,
        "subject_type": "user",
        "subject_id": 7 if is_that else number + 10,
    }


@pytest.mark.parametrize("sort", ["created_at", "-created_at"])
@pytest.mark.parametrize(
    "filters",
    [
        {},
        {"act": "login.failed"},
        {"actor_id": 7},
        {"subject_id": 7},
        {"subject_type": "user", "subject_id": 7},
    ],
    ids=lambda filters: "+".join(filters) or "all",
)
async def test_the_trail_is_read_from_an_index(
    client: Client, filters: dict[str, Any], sort: str
) -> None:
    """A42: no sort and no walk over the table, however long the trail is."""
    admin = await new_user(client, roles=["admin"])
    async with client.database.begin() as session:
        await session.execute(insert(AuditEvent), [_of_many(number) for number in range(3_000)])
    await sql.gather_statistics(client.database, "audit_events")
    with sql.watched(client.database) as sent:
        found = await page(admin, "/audit-events", sort=sort, page_size=5, **filters)
    assert found["items"]
    (rows,) = [each for each in sent if "AS page" in each.text and "LIMIT" in each.text]
    steps = await sql.plan(client.database, rows)
    # The index by the subject's id answers for its type too.
    first = [name for name in filters if name != "subject_type"]
    column = "_".join([*first, "created_at"])
    (ids,) = [step for step in steps if f"ix_audit_events_{column}" in step]
    match client.database.dialect:
        case "mysql":
            assert "Using index" in ids
            assert "filesort" not in ids
        case "sqlite":
            assert "COVERING INDEX" in ids
            assert not any("TEMP B-TREE" in step for step in steps[: steps.index(ids) + 1])
        case _:
            assert "Index Only Scan" in ids
            assert "Limit" in steps[steps.index(ids) - 1]
