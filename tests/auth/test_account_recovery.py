"""Password reset and invitations: the mailed link works once."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest
from sqlalchemy import select

from app.core.passwords import Policy
from app.crud import one_time_tokens
from app.models.audit_events import AuditAct, AuditEvent
from app.models.base import utc_now
from app.models.one_time_tokens import OneTimeToken, Purpose
from app.models.outbox import MailKind
from tests.support.apps import client_of
from tests.support.client import PASSWORD, Client, Person
from tests.support.concurrency import at_once, statuses
from tests.support.links import forgotten, kinds_to, link_in, mails_to, text_of, token_to
from tests.support.logs import Output
from tests.support.matrix import snapshot
from tests.support.overrides import override_settings

pytestmark = pytest.mark.usefixtures("hurried")
NEW = "Another-Horse-8"
NO_TOKENS = ("", "x", "0" * 63, "0" * 64, "0" * 65, "A" * 64, "é" * 64, "0" * 63 + "\n", "\0", "{}")


async def reset(client: Client, token: str, password: str = NEW) -> httpx2.Response:
    return await client.post("/auth/password/reset", {"token": token, "password": password})


async def forget(client: Client, email: str) -> httpx2.Response:
    return await client.post("/auth/password/forgot", {"email": email})


async def can_log_in(client: Client, email: str, password: str) -> bool:
    form = {"username": email, "password": password}
    return (await client.request("POST", "/auth/login", data=form)).status_code == 200


async def acts(client: Client) -> Counter[str]:
    async with client.database.begin(readonly=True) as session:
        return Counter(await session.scalars(select(AuditEvent.act)))


def later(monkeypatch: pytest.MonkeyPatch, passed: timedelta) -> None:
    """Let some time have passed for links."""
    monkeypatch.setattr(one_time_tokens, "utc_now", lambda: utc_now() + passed)


async def refused(client: Client, token: str) -> dict[str, Any]:
    """The body of a refusal, without what differs between any two requests."""
    response = await reset(client, token)
    assert response.status_code == 400, (token, response.text)
    body: dict[str, Any] = response.json()
    assert body["code"] == "invalid_one_time_token"
    return {name: value for name, value in body.items() if name != "request_id"}


# --- The way it should go ------------------------------------------------------------------------


async def test_a_forgotten_password_is_replaced_by_the_link_of_a_mail(client: Client) -> None:
    """A24: every session ends; a mail reports the change, and the address is verified."""
    ana = await client.user()
    other = await client.person(ana.account)
    response = await forget(client, ana.email.upper())
    assert (response.status_code, response.content) == (202, b"")
    mail = (await mails_to(client, ana.email))[-1]
    assert mail.kind == MailKind.password_reset
    page, token = link_in(text_of(client, mail))
    assert page == "reset-password"
    response = await reset(client, token)
    assert (response.status_code, response.content) == (204, b"")
    for person in (ana, other):
        assert (await person.get("/users/me")).status_code == 401
    assert not await can_log_in(client, ana.email, PASSWORD)
    again = await client.person(ana.account, NEW)
    assert (await again.get("/users/me")).json()["email_verified"]
    assert (await kinds_to(client, ana.email))[-1] == MailKind.password_changed
    found = await acts(client)
    assert (found[AuditAct.password_forgotten], found[AuditAct.password_reset]) == (1, 1)


async def test_the_mailbox_of_development_shows_the_link(client: Client) -> None:
    """As does the HTML of the mail, to be clicked on."""
    admin, ana = await client.admin(), await client.user()
    token = await forgotten(client, email=ana.email)
    shown = (await admin.get("/outbox?kind=password_reset")).json()["items"][0]
    link = f"http://127.0.0.1:8000/account/reset-password#{token}"
    assert link in shown["text"].split()
    assert f'<a href="{link}"' in shown["html"]


async def test_an_invitation_sets_the_first_password(client: Client) -> None:
    admin = await client.admin()
    email = "invited@example.com"
    body = {"email": email, "name": "Inés", "locale": "es"}
    assert (await admin.post("/users", body)).status_code == 201
    [mail] = await mails_to(client, email)
    assert (mail.kind, mail.locale) == (MailKind.invitation, "es")
    page, token = link_in(text_of(client, mail))
    assert page == "invitation"
    assert (await reset(client, token)).status_code == 204
    assert await can_log_in(client, email, NEW)


async def test_the_invited_may_ask_for_a_link_as_everybody(client: Client) -> None:
    """And the one that comes first sets the password: the other is worthless then."""
    admin = await client.admin()
    email = "invited@example.com"
    assert (await admin.post("/users", {"email": email, "name": "Inés"})).status_code == 201
    invitation = await token_to(client, email)
    assert (await reset(client, await forgotten(client, email=email))).status_code == 204
    await refused(client, invitation)


# --- Tokens --------------------------------------------------------------------------------------


async def test_of_twenty_uses_at_once_one_succeeds(client: Client) -> None:
    """A26: single use."""
    ana = await client.user()
    token = await forgotten(client, email=ana.email)
    answers = await at_once(reset(client, token, f"Another-Horse-{n}") for n in range(20))
    assert statuses(answers) == {204: 1, 400: 19}
    [won] = [n for n, answer in enumerate(answers) if answer.status_code == 204]
    assert await can_log_in(client, ana.email, f"Another-Horse-{won}")
    assert (await acts(client))[AuditAct.password_reset] == 1


async def test_every_bad_token_is_refused_in_the_same_words(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Used, replaced, expired, for another purpose, of a disabled or deleted user, or invented."""
    admin = await client.admin()
    used, replaced, expired, verifying, disabled, deleted = [await client.user() for _ in range(6)]
    tokens = [await token_to(client, verifying.email)]
    others = (used, replaced, expired, disabled, deleted)
    tokens += [await forgotten(client, email=person.email) for person in others]
    assert (await reset(client, tokens[1])).status_code == 204
    newer = await forgotten(client, email=replaced.email)
    assert newer != tokens[2]
    assert (await admin.patch(f"/users/{disabled.id}", {"is_active": False})).status_code == 200
    assert (await admin.delete(f"/users/{deleted.id}")).status_code == 204
    with monkeypatch.context() as patch:
        later(patch, timedelta(hours=1))
        bodies = [await refused(client, token) for token in [*tokens, *NO_TOKENS]]
    assert all(body == bodies[0] for body in bodies)
    for token in (tokens[0], tokens[1], tokens[2], *tokens[4:]):
        assert await refused(client, token) == bodies[0]
    assert (await reset(client, tokens[3])).status_code == 204, "an hour had not passed"
    assert (await reset(client, newer)).status_code == 204


@pytest.mark.parametrize("path", ["/auth/password/reset", "/auth/email/verify"])
async def test_hostile_tokens_are_refused(client: Client, path: str) -> None:
    """A36: whatever it is, 400 or 422."""
    extra: dict[str, str] = {"password": NEW} if "reset" in path else {}
    for token in (*NO_TOKENS, "0" * 1001, None, 7, ["0" * 64], {"a": 1}):
        response = await client.post(path, {"token": token} | extra)
        assert response.status_code in {400, 422}, token
    for raw in (b'"\\ud800"', b'"\\u0000"', b"NaN", b"1e400"):
        body = b'{"password": "Another-Horse-8", "token": ' + raw + b"}"
        if not extra:
            body = b'{"token": ' + raw + b"}"
        headers = {"Content-Type": "application/json"}
        response = await client.request("POST", path, content=body, headers=headers)
        assert response.status_code in {400, 422}, raw


@pytest.mark.parametrize("purpose", Purpose)
async def test_a_link_lives_as_long_as_its_mail_says(
    client: Client, monkeypatch: pytest.MonkeyPatch, purpose: Purpose
) -> None:
    admin, ana = await client.admin(), await client.user()
    email = ana.email
    path, extra = "/auth/email/verify", {}
    match purpose:
        case Purpose.change_email:
            body = {"current_password": PASSWORD, "new_email": "moved@example.com"}
            assert (await ana.put("/users/me/email", body)).status_code == 202
            email = "moved@example.com"
        case Purpose.reset_password:
            await forgotten(client, email=email)
        case Purpose.invitation:
            email = "invited@example.com"
            assert (await admin.post("/users", {"email": email, "name": "Inés"})).is_success
    if purpose in {Purpose.reset_password, Purpose.invitation}:
        path, extra = "/auth/password/reset", {"password": NEW}
    body = {"token": await token_to(client, email)} | extra
    for passed, expected in ((timedelta(), 400), (timedelta(seconds=-60), 204)):
        with monkeypatch.context() as patch:
            later(patch, one_time_tokens.LIFETIMES[purpose] + passed)
            assert (await client.post(path, body)).status_code == expected


async def test_a_weak_password_does_not_burn_the_link(client: Client) -> None:
    ana = await client.user("Zoraida")
    token = await forgotten(client, email=ana.email)
    for weak in ("short", "alllowercase7", "Password1", "Zoraida1", ana.email):
        response = await reset(client, token, weak)
        assert response.status_code == 422, weak
        assert response.json()["errors"][0]["field"] == "password"
    assert (await ana.get("/users/me")).status_code == 200, "nothing has happened yet"
    with override_settings(client.app, password_policy=Policy.nist):
        assert (await reset(client, token, "Short-Horse-8")).status_code == 422
    assert (await reset(client, token)).status_code == 204


async def test_a_link_that_is_overtaken_while_the_password_is_hashed_is_refused(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Withdrawn, or its owner disabled, between the look and the use."""
    admin, ana, eva = await client.admin(), await client.user(), await client.user()
    hashing = client.app.state.passwords.hash
    for person in (ana, eva):
        token = await forgotten(client, email=person.email)

        async def overtaken(password: str, person: Person = person) -> str:
            monkeypatch.undo()
            if person is ana:
                await forgotten(client, email=ana.email)
            else:
                await admin.patch(f"/users/{eva.id}", {"is_active": False})
            return str(await hashing(password))

        monkeypatch.setattr(client.app.state.passwords, "hash", overtaken)
        await refused(client, token)


async def test_no_token_is_kept_anywhere(client: Client, logs: Output) -> None:
    """A57: neither in a table nor in a log; what is kept opens nothing."""
    admin, ana = await client.admin(), await client.user()
    body = {"current_password": PASSWORD, "new_email": "moved@example.com"}
    assert (await ana.put("/users/me/email", body)).status_code == 202
    assert (await admin.post("/users", {"email": "in@example.com", "name": "Inés"})).is_success
    tokens = [await token_to(client, "moved@example.com"), await token_to(client, "in@example.com")]
    tokens.append(await forgotten(client, email=ana.email))
    tokens.append(link_in(text_of(client, (await mails_to(client, ana.email))[0]))[1])
    kept = str(await snapshot(client.database))
    async with client.database.begin(readonly=True) as session:
        for secret in await session.scalars(select(OneTimeToken.token_hash)):
            await refused(client, secret)
    for mail in await mails_to(client, ana.email):
        for value in mail.values.values():
            await refused(client, value)
    assert (await reset(client, tokens[2])).status_code == 204
    kept += str(await snapshot(client.database)) + logs.take()
    for token in tokens:
        assert token not in kept
    assert await kinds_to(client, ana.email)


async def test_a_mail_whose_key_is_gone_is_written_without_its_link(
    client: Client, tmp_path: Path
) -> None:
    """As long as the key is a fallback the link is the same, and works."""
    ana = await client.user()
    token = await forgotten(client, email=ana.email)
    mail = (await mails_to(client, ana.email))[-1]
    old = client.app.state.settings.secret_key
    newer = {"secret_key": "x" * 8 + "0123456789abcdefghijklmnopqrstuv"}
    async with client_of(client, tmp_path, **newer, secret_key_fallbacks=[old]) as rotated:
        assert link_in(text_of(rotated, mail)) == ("reset-password", token)
    async with client_of(client, tmp_path, **newer) as forgetful:
        text = text_of(forgetful, mail)
    assert "Request another email" in text
    assert "#" not in text
    assert (await reset(client, token)).status_code == 204


# --- Who has an account --------------------------------------------------------------------------


async def test_an_address_without_an_active_account_gets_no_mail(client: Client) -> None:
    """A30: and the same answer."""
    admin, disabled, deleted, known = await client.admin(), *[await client.user() for _ in "abc"]
    assert (await admin.patch(f"/users/{disabled.id}", {"is_active": False})).status_code == 200
    assert (await admin.delete(f"/users/{deleted.id}")).status_code == 204
    answers = []
    for email in (known.email, "nobody@example.com", disabled.email, deleted.email):
        response = await forget(client, email)
        headers = response.headers.multi_items()
        headers.remove(("x-request-id", response.headers["x-request-id"]))
        answers.append((response.status_code, response.content, headers))
    assert all(answer == answers[0] for answer in answers)
    assert await kinds_to(client, known.email) == [MailKind.welcome, MailKind.password_reset]
    assert await kinds_to(client, "nobody@example.com") == []
    for person in (disabled, deleted):
        assert await kinds_to(client, person.email) == [MailKind.welcome]
    assert (await acts(client))[AuditAct.password_forgotten] == 4


async def test_requests_at_once_leave_one_link_that_works(client: Client) -> None:
    ana = await client.user()
    answers = await asyncio.gather(*[forget(client, ana.email) for _ in range(8)])
    assert statuses(answers) == {202: 8}
    tokens = [link_in(text_of(client, mail))[1] for mail in (await mails_to(client, ana.email))[1:]]
    assert len(tokens) == 8
    assert statuses([await reset(client, token) for token in tokens]) == {204: 1, 400: 7}
