"""Refresh tokens: single use, the same answer within the grace window, theft detection."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import delete, update

from app.models.audit_events import AuditAct
from app.models.base import utc_now
from app.models.outbox import Mail
from app.models.users import User
from app.tasks.mail import render
from tests.conftest import SECRET
from tests.support import faults
from tests.support.client import PASSWORD, Client
from tests.support.mails import mail_to
from tests.support.overrides import override_settings
from tests.support.refreshing import (
    alarms,
    attempt,
    events,
    opens,
    pass_time,
    refused,
    renewed,
    the_session,
    unused,
)

PAST_THE_GRACE = timedelta(seconds=11)
NEW_SECRET = "newer-" + "0123456789abcdefghijklmnopqrstuv"


async def begun(client: Client, **account: str) -> dict[str, Any]:
    """Register a user and return the response to their login."""
    return await client.log_in((await client.register(**account))["email"])


# --- Rotation ------------------------------------------------------------------------------------


async def test_every_refresh_gives_new_tokens_of_the_same_session(client: Client) -> None:
    login = await begun(client)
    seen = {login["refresh_token"]}
    for _ in range(3):
        before = await the_session(client)
        login = await renewed(client, login["refresh_token"])
        assert (login["token_type"], login["expires_in"]) == ("bearer", 15 * 60)
        assert await opens(client, login)
        after = await the_session(client)
        assert after.id == before.id
        assert after.last_used_at > before.last_used_at
        seen.add(login["refresh_token"])
    assert len(seen) == 4
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{43}", token) for token in seen), "256 bits"
    assert await unused(client) == 1


async def test_no_table_holds_a_token(client: Client) -> None:
    login = await begun(client)
    successor = await renewed(client, login["refresh_token"])
    stored = str(await faults.dump(client.database))
    for token in (login["refresh_token"], successor["refresh_token"]):
        assert token not in stored


async def test_an_answer_to_a_refresh_is_not_kept_by_anybody(client: Client) -> None:
    login = await begun(client)
    assert (await attempt(client, login["refresh_token"])).headers["cache-control"] == "no-store"
    assert (await attempt(client, "unknown")).headers["cache-control"] == "no-store"


# --- The grace window ----------------------------------------------------------------------------


async def test_a_token_used_again_within_the_grace_window_gets_the_same_answer(
    client: Client,
) -> None:
    """A26, the documented grace: a reply was lost, and the client asks again."""
    login = await begun(client)
    first = await renewed(client, login["refresh_token"])
    await pass_time(client, timedelta(seconds=8))
    again = await renewed(client, login["refresh_token"])
    assert again["refresh_token"] == first["refresh_token"]
    assert again["access_token"] != first["access_token"], "a fresh one"
    assert await opens(client, again)
    assert await unused(client) == 1
    await renewed(client, first["refresh_token"])
    assert await alarms(client) == (0, 0)


async def test_a_slow_tab_catches_up_with_a_fast_one(client: Client) -> None:
    """A tab that gets a token which another has used already would end both, later."""
    login = await begun(client)
    second = await renewed(client, login["refresh_token"])
    third = await renewed(client, second["refresh_token"])
    slow = await renewed(client, login["refresh_token"])
    assert slow["refresh_token"] == third["refresh_token"]
    await pass_time(client, PAST_THE_GRACE)
    await renewed(client, slow["refresh_token"])


async def test_a_new_secret_key_inside_the_window_changes_nothing(client: Client) -> None:
    login = await begun(client)
    second = await renewed(client, login["refresh_token"])
    new, old = SecretStr(NEW_SECRET), SecretStr(SECRET)
    with override_settings(client.app, secret_key=new, secret_key_fallbacks=[old]):
        again = await renewed(client, login["refresh_token"])
        assert again["refresh_token"] == second["refresh_token"]
        third = await renewed(client, second["refresh_token"])
        by_two_keys = await renewed(client, login["refresh_token"])
        assert by_two_keys["refresh_token"] == third["refresh_token"]
    with override_settings(client.app, secret_key=new):
        await refused(client, login["refresh_token"])
        await renewed(client, third["refresh_token"])
    assert await alarms(client) == (0, 0)


# --- Behind it -----------------------------------------------------------------------------------


async def test_a_token_used_again_later_ends_the_session(client: Client) -> None:
    """A26: the token was copied. Both holders are logged out; one mail and one event report it."""
    login = await begun(client, email="ana@example.com", name="Ana")
    elsewhere = await client.log_in("ana@example.com")
    successor = await renewed(client, login["refresh_token"])
    await pass_time(client, PAST_THE_GRACE)
    assert await opens(client, successor)
    await refused(client, login["refresh_token"])
    for one in (login, successor):
        assert not await opens(client, one), "at once"
        await refused(client, one["refresh_token"])
    assert await opens(client, elsewhere), "only this device"
    assert await alarms(client) == (1, 1)
    (event,) = await events(client, AuditAct.session_reused)
    assert (event.subject_type, event.actor_id, event.ip) == ("session", None, "127.0.0.1")
    assert event.request_id == "always-the-same"


@pytest.mark.parametrize(
    ("locale", "words"), [("en", "change your password"), ("es", "cambia tu contraseña")]
)
async def test_the_mail_is_in_the_users_language(client: Client, locale: str, words: str) -> None:
    headers = {"Accept-Language": locale}
    body = {"email": "eva@example.com", "name": "Eva", "password": PASSWORD}
    await client.post("/auth/register", body, headers=headers)
    login = await client.log_in("eva@example.com")
    async with client.database.begin() as session:
        await session.execute(delete(Mail))
    with override_settings(client.app, refresh_grace_seconds=0):
        await renewed(client, login["refresh_token"])
        await refused(client, login["refresh_token"])
    mail = await mail_to(client.database, "eva@example.com")
    shown = render(mail, client.app.state.settings)
    assert words in shown.text
    assert "Eva" in shown.html


async def test_the_end_of_a_session_is_committed_before_the_answer(client: Client) -> None:
    """A1: a commit that fails is a 503, and the next attempt ends the session."""
    login = await begun(client)
    successor = await renewed(client, login["refresh_token"])
    await pass_time(client, PAST_THE_GRACE)
    with faults.failing_commits(client.database, faults.GONE[client.database.dialect]) as sabotage:
        response = await attempt(client, login["refresh_token"])
    assert (response.status_code, sabotage.hits) == (503, 1)
    assert await alarms(client) == (0, 0)
    assert await opens(client, successor)
    await refused(client, login["refresh_token"])
    assert not await opens(client, successor)
    assert await alarms(client) == (1, 1)


@pytest.mark.parametrize("failing", [faults.failing_writes, faults.failing_commits])
async def test_a_refresh_that_met_a_deadlock_is_run_again(client: Client, failing: Any) -> None:
    """A11"""
    login = await begun(client)
    for fault in faults.TRANSIENT[client.database.dialect]:
        with failing(client.database, fault, times=2) as sabotage:
            login = await renewed(client, login["refresh_token"])
        assert sabotage.hits == 2
        assert await unused(client) == 1


# --- Lifetimes -----------------------------------------------------------------------------------


async def test_a_session_that_rests_for_too_long_is_over(client: Client) -> None:
    login = await begun(client)
    for _ in range(3):
        await pass_time(client, timedelta(days=29))
        login = await renewed(client, login["refresh_token"])
    left = (await the_session(client)).expires_at - utc_now()
    assert timedelta(days=30) - left < timedelta(minutes=1)
    await pass_time(client, timedelta(days=30))
    await refused(client, login["refresh_token"])
    assert not await opens(client, login)


async def test_no_session_outlives_its_absolute_lifetime(client: Client) -> None:
    """A26: SESSION_DAYS, however often it is refreshed."""
    login = await begun(client)
    for _ in range(8):
        await pass_time(client, timedelta(days=20))
        login = await renewed(client, login["refresh_token"])
    session = await the_session(client)
    assert session.expires_at == session.created_at + timedelta(days=180)
    await pass_time(client, timedelta(days=20))
    await refused(client, login["refresh_token"])
    assert await alarms(client) == (0, 0), "too old is not stolen"


# --- People who may not --------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["disabled", "deleted", "logged out", "ended elsewhere"])
async def test_a_refresh_token_dies_with_its_session(client: Client, way: str) -> None:
    """A24, A26: refused from the next request on, also after the account came back."""
    admin, account = await client.admin(), await client.register()
    login = await client.log_in(account["email"])
    used = login["refresh_token"]
    login = await renewed(client, used)
    me = {"Authorization": f"Bearer {login['access_token']}"}
    path = f"/users/{account['id']}"
    if way == "disabled":
        assert (await admin.patch(path, {"is_active": False})).status_code == 200
    elif way == "deleted":
        assert (await admin.delete(path)).status_code == 204
    elif way == "logged out":
        assert (await client.post("/auth/logout", headers=me)).status_code == 204
    else:
        other = await client.person(account)
        assert (await other.delete("/auth/sessions")).status_code == 204
    for token in (login["refresh_token"], used):
        await refused(client, token)
    if way == "disabled":
        assert (await admin.patch(path, {"is_active": True})).status_code == 200
    elif way == "deleted":
        assert (await admin.post(f"{path}/restore")).status_code == 200
    await refused(client, login["refresh_token"])
    assert not await opens(client, login)
    assert await alarms(client) == (0, 0)


@pytest.mark.parametrize("column", ["is_active", "deleted_at"])
async def test_an_account_that_is_off_refuses_a_live_session(client: Client, column: str) -> None:
    """A24: the account counts, not only that switching it off ended its sessions."""
    login = await begun(client)
    off = {"is_active": False, "deleted_at": utc_now()}[column]
    async with client.database.begin() as session:
        await session.execute(update(User).values({column: off}))
    await refused(client, login["refresh_token"])
    assert (await the_session(client)).ended_at is None
