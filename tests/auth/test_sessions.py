"""Sessions: their users list them and end them."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select, update

from app.crud import sessions
from app.models.audit_events import AuditAct
from app.models.base import utc_now
from app.models.sessions import LoginSession
from tests.support import faults
from tests.support.client import Client, Person
from tests.support.refreshing import events, opens, refused, renewed

MISSING_ID = 2**62


async def sessions_of(person: Client, **params: Any) -> list[dict[str, Any]]:
    response = await person.get("/auth/sessions", params=params)
    assert response.status_code == 200, response.text
    found: list[dict[str, Any]] = response.json()["items"]
    return found


async def current(person: Client) -> dict[str, Any]:
    """Return the session that the request of this person belongs to."""
    (found,) = [session for session in await sessions_of(person) if session["current"]]
    return found


async def logged_in_by(client: Client, person: Person, user_agent: str) -> Person:
    """Log in a person on another device and return their client there."""
    device = Client(client.http, client.app, client.contract, {"User-Agent": user_agent})
    return await device.person(person.account)


# --- Seeing --------------------------------------------------------------------------------------


async def test_everybody_sees_where_they_are_logged_in(client: Client) -> None:
    ana = await client.user()
    phone = await logged_in_by(client, ana, "Phone/1.0")
    await client.user("Luis")
    here, there = await current(ana), await current(phone)
    assert here["id"] != there["id"]
    assert there["user_agent"] == "Phone/1.0"
    assert there["ip"] == "127.0.0.1"
    assert [session["id"] for session in await sessions_of(ana)] == [there["id"], here["id"]]
    begun, until = (datetime.fromisoformat(there[name]) for name in ("created_at", "expires_at"))
    assert there["last_used_at"] == there["created_at"]
    assert until - begun == timedelta(days=30)
    assert {session["current"] for session in await sessions_of(phone, sort="created_at")} == {
        True,
        False,
    }


async def test_a_refresh_is_a_use(client: Client) -> None:
    account = await client.register()
    login = await client.log_in(account["email"])
    ana = await client.person(account)
    last, first = await sessions_of(ana)
    assert last["current"] is True
    await renewed(client, login["refresh_token"])
    moved, _ = await sessions_of(ana, sort="-last_used_at")
    assert moved["id"] == first["id"]
    assert moved["last_used_at"] > first["last_used_at"]
    assert moved["expires_at"] > first["expires_at"]
    assert moved["created_at"] == first["created_at"]
    by_age = await sessions_of(ana, sort="created_at")
    assert [session["id"] for session in by_age] == [first["id"], last["id"]]


async def test_sessions_that_are_over_are_not_listed(client: Client) -> None:
    ana = await client.user()
    ended, expired = [await client.person(ana.account) for _ in range(2)]
    assert (await ended.post("/auth/logout")).status_code == 204
    await expire(client, (await current(expired))["id"])
    assert [session["current"] for session in await sessions_of(ana)] == [True]


async def expire(client: Client, session_id: int) -> None:
    """Let a session's time have run out."""
    over = update(LoginSession).where(LoginSession.id == session_id)
    async with client.database.begin() as session:
        await session.execute(over.values(expires_at=utc_now() - timedelta(seconds=2)))


# --- Ending --------------------------------------------------------------------------------------


async def test_ending_a_session_ends_all_its_tokens_at_once(client: Client) -> None:
    ana = await client.user()
    login = await client.log_in(ana.email)
    assert await opens(client, login)
    (other,) = [session for session in await sessions_of(ana) if not session["current"]]
    assert (await ana.delete(f"/auth/sessions/{other['id']}")).status_code == 204
    assert not await opens(client, login)
    await refused(client, login["refresh_token"])
    assert (await ana.get("/users/me")).status_code == 200
    (event,) = await events(client, AuditAct.session_ended)
    assert (event.actor_id, event.subject_type, event.subject_id) == (
        ana.id,
        "session",
        other["id"],
    )


async def test_of_other_sessions_nothing_is_told(client: Client) -> None:
    """A19: another user's, an ended, an expired and an unknown one get the same response."""
    ana, luis = await client.user(), await client.user("Luis")
    over, expired = [await client.person(ana.account) for _ in range(2)]
    ids = [(await current(person))["id"] for person in (luis, over, expired)]
    assert (await over.delete(f"/auth/sessions/{ids[1]}")).status_code == 204, "one's own too"
    await expire(client, ids[2])
    before = await faults.dump(client.database)
    answers = set()
    for session_id in (*ids, MISSING_ID):
        headers = {"X-Request-ID": "always-the-same"}
        response = await ana.delete(f"/auth/sessions/{session_id}", headers=headers)
        body = response.json()
        assert body.pop("instance").endswith(f"/{session_id}")
        answers.add((response.status_code, str(body)))
    assert len(answers) == 1
    assert answers.pop()[0] == 404
    assert await faults.dump(client.database) == before
    assert (await luis.get("/users/me")).status_code == 200


async def test_all_others_can_be_ended_together(client: Client) -> None:
    ana, luis = await client.user(), await client.user("Luis")
    logins = [await client.log_in(ana.email) for _ in range(3)]
    await expire(client, (await sessions_of(ana))[0]["id"])
    assert (await ana.delete("/auth/sessions")).status_code == 204
    for login in logins:
        assert not await opens(client, login)
        await refused(client, login["refresh_token"])
    assert [session["current"] for session in await sessions_of(ana)] == [True]
    assert (await luis.get("/users/me")).status_code == 200
    assert len(await events(client, AuditAct.session_ended)) == 2, "one had expired"
    assert (await ana.delete("/auth/sessions")).status_code == 204, "also when there are none"


async def test_a_logout_is_written_down(client: Client) -> None:
    ana = await client.user()
    session_id = (await current(ana))["id"]
    assert (await ana.post("/auth/logout")).status_code == 204
    (event,) = await events(client, AuditAct.session_ended)
    assert (event.actor_id, event.subject_id) == (ana.id, session_id)
    assert event.created_at > utc_now() - timedelta(minutes=1)
    async with client.database.begin(readonly=True) as session:
        assert await session.scalar(select(LoginSession.ended_at))


async def test_a_login_too_many_ends_the_oldest(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise one leaked password could start more sessions than its user can end."""
    monkeypatch.setattr(sessions, "MAX_LIVE", 3)
    ana = await client.user()
    others = [await logged_in_by(client, ana, f"Phone/{number}.0") for number in range(3)]
    assert (await ana.get("/users/me")).status_code == 401
    assert len(await sessions_of(others[-1])) == 3
