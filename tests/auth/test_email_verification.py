"""Confirmation and change of email addresses, and change of passwords."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest
from sqlalchemy import select, update

from app.core.security import Passwords
from app.models.audit_events import AuditAct, AuditEvent
from app.models.outbox import MailKind
from app.models.users import User
from tests.conftest import CHEAP
from tests.support.client import PASSWORD, Client, Person
from tests.support.links import forgotten, kinds_to, link_in, mails_to, text_of, token_to
from tests.support.matrix import snapshot
from tests.support.overrides import override_state

pytestmark = pytest.mark.usefixtures("hurried")
NEW = "Another-Horse-8"
MOVED = "moved@example.com"
WRONG = "Wrong-Horse-7"


async def verify(client: Client, token: str) -> httpx2.Response:
    return await client.post("/auth/email/verify", {"token": token})


async def ask_to_move(person: Person, email: str = MOVED) -> httpx2.Response:
    body = {"current_password": PASSWORD, "new_email": email}
    return await person.put("/users/me/email", body)


async def change_password(person: Person, current: str = PASSWORD) -> httpx2.Response:
    body = {"current_password": current, "new_password": NEW}
    return await person.put("/users/me/password", body)


async def me(person: Person) -> dict[str, Any]:
    response = await person.get("/users/me")
    assert response.status_code == 200
    found: dict[str, Any] = response.json()
    return found


async def has_acted(client: Client, act: AuditAct) -> list[tuple[int | None, int | None]]:
    """By whom, to whom."""
    statement = select(AuditEvent.actor_id, AuditEvent.subject_id).where(AuditEvent.act == act)
    async with client.database.begin(readonly=True) as session:
        return [(actor, subject) for actor, subject in await session.execute(statement)]


# --- To confirm an address -----------------------------------------------------------------------


async def test_the_welcome_mail_confirms_the_address(client: Client) -> None:
    ana = await client.user()
    assert not (await me(ana))["email_verified"]
    [mail] = await mails_to(client, ana.email)
    page, token = link_in(text_of(client, mail))
    assert (mail.kind, page) == (MailKind.welcome, "verify-email")
    response = await verify(client, token)
    assert (response.status_code, response.content) == (204, b"")
    assert (await me(ana))["email_verified"]
    assert await has_acted(client, AuditAct.email_verified) == [(ana.id, ana.id)]
    assert (await verify(client, token)).status_code == 400


async def test_a_new_link_is_mailed_until_the_address_is_confirmed(client: Client) -> None:
    """The newer one replaces the older."""
    ana = await client.user()
    first = await token_to(client, ana.email)
    response = await ana.post("/auth/email/verify/resend")
    assert (response.status_code, response.content) == (202, b"")
    second = await token_to(client, ana.email)
    assert (await verify(client, first)).status_code == 400
    assert (await verify(client, second)).status_code == 204
    before = await snapshot(client.database)
    assert (await ana.post("/auth/email/verify/resend")).status_code == 202
    assert await snapshot(client.database) == before


async def test_a_link_for_one_thing_is_no_good_for_another(client: Client) -> None:
    ana = await client.user()
    verifying = await token_to(client, ana.email)
    resetting = await forgotten(client, email=ana.email)
    assert (await verify(client, resetting)).status_code == 400
    body = {"token": verifying, "password": NEW}
    assert (await client.post("/auth/password/reset", body)).status_code == 400
    assert (await verify(client, verifying)).status_code == 204


async def test_what_was_confirmed_stays_so_since_then(client: Client) -> None:
    """A later link, of a reset or of this kind, does not move the moment."""
    ana = await client.user()
    token = await token_to(client, ana.email)
    body = {"token": await forgotten(client, email=ana.email), "password": NEW}
    assert (await client.post("/auth/password/reset", body)).status_code == 204
    moment = select(User.email_verified_at).where(User.id == ana.id)
    async with client.database.begin(readonly=True) as session:
        before = await session.scalar(moment)
    assert (await verify(client, token)).status_code == 204
    body["token"] = await forgotten(client, email=ana.email)
    assert (await client.post("/auth/password/reset", body)).status_code == 204
    async with client.database.begin(readonly=True) as session:
        assert await session.scalar(moment) == before is not None


# --- Another address -----------------------------------------------------------------------------


async def test_another_address_counts_from_the_use_of_its_link_on(client: Client) -> None:
    """A26: every session ends with it, and every link to the address that was."""
    ana = await client.user()
    old = ana.email
    resetting = await forgotten(client, email=old)
    response = await ask_to_move(ana, "Moved@Example.com")
    assert (response.status_code, response.content) == (202, b"")
    assert (await me(ana))["email"] == old, "nothing has changed yet"
    notice = (await mails_to(client, old))[-1]
    assert notice.kind == MailKind.email_change_notice
    assert "Moved@example.com" in text_of(client, notice)
    [mail] = await mails_to(client, "Moved@example.com")
    page, token = link_in(text_of(client, mail))
    assert (mail.kind, page) == (MailKind.email_change, "change-email")
    assert (await verify(client, token)).status_code == 204
    assert (await ana.get("/users/me")).status_code == 401
    assert (await kinds_to(client, old))[-1] == MailKind.email_changed
    moved = await client.person({"email": MOVED})
    assert (await me(moved))["email"] == "Moved@example.com"
    assert (await me(moved))["email_verified"]
    body = {"token": resetting, "password": NEW}
    assert (await client.post("/auth/password/reset", body)).status_code == 400
    assert (await verify(client, token)).status_code == 400
    for act in (AuditAct.email_change_requested, AuditAct.email_changed):
        assert await has_acted(client, act) == [(ana.id, ana.id)]
    assert await client.register(email=old), "the old one is free"


async def test_an_address_that_is_taken_is_not_told_of(client: Client) -> None:
    """The response and the notice are the same; the owner of the address gets no mail."""
    ana, bea = await client.user(), await client.user()
    taken, free = await ask_to_move(ana, bea.email), await ask_to_move(ana)
    assert (taken.status_code, taken.content) == (free.status_code, free.content) == (202, b"")
    notices = [text_of(client, mail) for mail in (await mails_to(client, ana.email))[-2:]]
    assert notices[0].replace(bea.email, MOVED) == notices[1]
    assert await kinds_to(client, bea.email) == [MailKind.welcome]


async def test_an_address_may_be_taken_before_the_link_is_used(client: Client) -> None:
    """409, nothing changed; the link is not burnt, should the address become free."""
    ana = await client.user()
    assert (await ask_to_move(ana)).status_code == 202
    token = await token_to(client, MOVED)
    bea = await client.user(email=MOVED)
    before = await snapshot(client.database)
    response = await verify(client, token)
    assert (response.status_code, response.json()["code"]) == (409, "email_taken")
    assert await snapshot(client.database) == before
    body = {"current_password": PASSWORD}
    assert (await bea.delete("/users/me", body)).status_code == 204
    assert (await verify(client, token)).status_code == 204


async def test_ones_own_address_may_be_written_otherwise(client: Client) -> None:
    ana = await client.user(email="ana.case@example.com")
    assert (await ask_to_move(ana, "Ana.Case@example.com")).status_code == 202
    token = await token_to(client, "Ana.Case@example.com")
    assert (await verify(client, token)).status_code == 204
    again = await client.person({"email": "ana.case@example.com"})
    assert (await me(again))["email"] == "Ana.Case@example.com"


# --- Another password ----------------------------------------------------------------------------


async def test_a_changed_password_ends_the_other_sessions(client: Client) -> None:
    """A26: all but the caller's; links that are out end too, that to a new address included."""
    ana = await client.user()
    other = await client.person(ana.account)
    assert (await ask_to_move(ana)).status_code == 202
    tokens = [await token_to(client, MOVED), await forgotten(client, email=ana.email)]
    response = await change_password(ana)
    assert (response.status_code, response.content) == (204, b"")
    assert (await other.get("/users/me")).status_code == 401
    assert (await ana.get("/users/me")).status_code == 200
    assert await client.login(ana.email, NEW)
    assert (await kinds_to(client, ana.email))[-1] == MailKind.password_changed
    assert await has_acted(client, AuditAct.password_changed) == [(ana.id, ana.id)]
    assert (await verify(client, tokens[0])).status_code == 400
    body = {"token": tokens[1], "password": NEW}
    assert (await client.post("/auth/password/reset", body)).status_code == 400


@pytest.mark.parametrize(
    ("path", "wish"), [("password", {"new_password": NEW}), ("email", {"new_email": MOVED})]
)
async def test_without_the_current_password_nothing_changes(
    client: Client, path: str, wish: dict[str, str]
) -> None:
    """A29: none, an empty or a wrong one; nobody at all; one that was never set."""
    ana = await client.user()
    before = await snapshot(client.database)
    for given, expected in (({}, 422), ({"current_password": ""}, 403)):
        assert (await ana.put(f"/users/me/{path}", wish | given)).status_code == expected
    response = await ana.put(f"/users/me/{path}", wish | {"current_password": WRONG})
    assert response.status_code == 403
    assert response.json()["code"] == "invalid_current_password"
    right = wish | {"current_password": PASSWORD}
    assert (await client.put(f"/users/me/{path}", right)).status_code == 401
    assert await snapshot(client.database) == before
    async with client.database.begin() as session:
        await session.execute(update(User).values(password_hash=None))
    assert (await ana.put(f"/users/me/{path}", right)).status_code == 403


async def test_a_weak_new_password_is_refused(client: Client) -> None:
    ana = await client.user("Zoraida")
    for weak in ("short", "Zoraida1", "Password1"):
        body = {"current_password": PASSWORD, "new_password": weak}
        response = await ana.put("/users/me/password", body)
        assert response.status_code == 422
        assert {error["field"] for error in response.json()["errors"]} == {"new_password"}
    assert await client.login(ana.email)


class Overtaken(Passwords):
    """Lets something happen once, after the current password was verified."""

    def __init__(self, meanwhile: Any) -> None:
        super().__init__(CHEAP)
        self._meanwhile = meanwhile

    async def verify(self, password: str, stored: str | None) -> tuple[bool, str | None]:
        found = await super().verify(password, stored)
        meanwhile, self._meanwhile = self._meanwhile, None
        if meanwhile:
            await meanwhile()
        return found


async def test_a_change_meanwhile_is_not_lost(client: Client) -> None:
    """A29: the password that was right is another by now, so the whole request runs again."""
    ana = await client.user()
    changed = await client.app.state.passwords.hash("Third-Horse-9")

    async def change() -> None:
        async with client.database.begin() as session:
            await session.execute(update(User).values(password_hash=changed))

    with override_state(client.app, passwords=Overtaken(change)):
        assert (await change_password(ana)).status_code == 403
    assert await client.login(ana.email, "Third-Horse-9")


async def test_a_better_hash_of_the_same_password_is_no_change(client: Client) -> None:
    ana = await client.user()
    better = await client.app.state.passwords.hash(PASSWORD)

    async def log_in_elsewhere() -> None:
        async with client.database.begin() as session:
            await session.execute(update(User).values(password_hash=better))

    with override_state(client.app, passwords=Overtaken(log_in_elsewhere)):
        assert (await change_password(ana)).status_code == 204
    assert await client.login(ana.email, NEW)


async def test_an_account_that_goes_meanwhile_changes_no_more(client: Client) -> None:
    admin, ana = await client.admin(), await client.user()

    async def delete() -> None:
        assert (await admin.delete(f"/users/{ana.id}")).status_code == 204

    with override_state(client.app, passwords=Overtaken(delete)):
        assert (await change_password(ana)).status_code == 401


@pytest.mark.parametrize("way", ["disabled", "deleted"])
async def test_what_was_mailed_before_an_account_was_shut_opens_nothing_afterwards(
    client: Client, way: str
) -> None:
    """A thief's change of address must not outlast the administrator who stopped them."""
    admin, ana = await client.admin(), await client.user()
    body = {"current_password": PASSWORD, "new_email": "thief@example.org"}
    assert (await ana.put("/users/me/email", body)).status_code == 202
    path = f"/users/{ana.id}"
    if way == "disabled":
        assert (await admin.patch(path, {"is_active": False})).status_code == 200
        assert (await admin.patch(path, {"is_active": True})).status_code == 200
    else:
        assert (await admin.delete(path)).status_code == 204
        assert (await admin.post(f"{path}/restore")).status_code == 200
    token = await token_to(client, "thief@example.org")
    answer = await client.post("/auth/email/verify", {"token": token})
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_one_time_token")
    assert (await admin.get(path)).json()["email"] == ana.email
