"""The outbox over HTTP: which mails are written, for whom, and their states."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from app.config import Settings
from app.core.permissions import Permission
from app.crud import outbox
from app.crud.outbox import Failure
from app.db.engine import Database
from app.models.outbox import Mail, MailKind, MailState
from app.tasks.dispatcher import Dispatcher
from app.tasks.mail import FolderMailer
from tests.support.apps import client_of
from tests.support.client import PASSWORD, Client, Person
from tests.support.mails import count, mail_to, make_due, queue, stored


async def list_mails(admin: Person, **query: Any) -> list[dict[str, Any]]:
    response = await admin.get("/outbox", params=query)
    assert response.status_code == 200, response.text
    found: list[dict[str, Any]] = response.json()["items"]
    return found


async def give_up(database: Database, mail_id: int) -> None:
    async with database.begin() as session:
        mail = await session.get_one(Mail, mail_id)
        mail.state, mail.attempts, mail.last_error = MailState.dead, 8, "550 nobody here"


async def test_a_registration_queues_one_welcome_mail(client: Client, database: Database) -> None:
    """A6: exactly one, for the account of the 201."""
    account = await client.register("Ana García")
    mail = await mail_to(database, account["email"])
    assert (mail.kind, mail.state, mail.attempts) == (MailKind.welcome, MailState.pending, 0)
    assert mail.user_id == account["id"]
    assert await count(database) == 1


async def test_no_mail_is_queued_for_a_registration_that_was_refused(
    client: Client, database: Database
) -> None:
    """A4: 0 mails for users that do not exist."""
    account = await client.register()
    taken = {"email": account["email"].upper(), "name": "Eva", "password": PASSWORD}
    assert (await client.post("/auth/register", taken)).status_code == 409
    weak = {"email": "weak@example.com", "name": "Eva", "password": "short"}
    assert (await client.post("/auth/register", weak)).status_code == 422
    assert await count(database) == 1


async def test_the_mail_is_rolled_back_with_its_registration(
    client: Client, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A1: written, then the transaction fails."""
    original = outbox.enqueue
    written: list[str] = []

    def enqueue_and_fail(session: Any, kind: MailKind, user: Any, **values: str) -> None:
        original(session, kind, user, **values)
        written.append(user.email)
        raise RuntimeError("a defect after the mail was written")

    monkeypatch.setattr(outbox, "enqueue", enqueue_and_fail)
    body = {"email": "ana@example.com", "name": "Ana", "password": PASSWORD}
    assert (await client.post("/auth/register", body)).status_code == 500
    assert written == ["ana@example.com"]
    assert await count(database) == 0
    monkeypatch.undo()
    assert (await client.post("/auth/register", body)).status_code == 201


@pytest.mark.parametrize(
    ("accepted", "locale", "subject"),
    [
        ("es-MX,es;q=0.9,en;q=0.8", "es", "Te damos la bienvenida, Ana"),
        ("en", "en", "Welcome, Ana"),
        ("fr", "en", "Welcome, Ana"),
    ],
)
async def test_the_mail_is_in_the_language_of_the_registration(
    client: Client, accepted: str, locale: str, subject: str
) -> None:
    admin = await client.admin()
    account = await client.register("Ana")
    body = {"email": "reader@example.com", "name": "Ana", "password": PASSWORD}
    response = await client.post("/auth/register", body, headers={"Accept-Language": accepted})
    assert response.json()["locale"] == locale
    mail = next(m for m in await list_mails(admin) if m["recipient"] == "reader@example.com")
    assert (mail["locale"], mail["subject"]) == (locale, subject)
    assert f'lang="{locale}"' in mail["html"]
    assert account["locale"] == "en"


async def test_without_a_mail_server_the_outbox_shows_the_mails_texts(client: Client) -> None:
    admin = await client.admin("Root")
    [mail] = await list_mails(admin)
    assert mail["recipient"] == admin.email
    assert "Hello Root," in mail["text"]
    assert "Hello Root," in mail["html"]
    assert mail["next_attempt_at"]
    assert mail["sent_at"] is None
    assert mail["message_id"].startswith("<")


async def test_with_a_mail_server_the_outbox_keeps_the_mails_texts_to_itself(
    client: Client, tmp_path: Path
) -> None:
    admin = await client.admin()
    async with client_of(client, tmp_path, smtp_host="mail.example.com") as other:
        [mail] = await list_mails(Person(other.http, other.app, client.contract, admin.headers))
    assert (mail["text"], mail["html"]) == (None, None)
    assert mail["subject"] == "Welcome, Root"


async def test_mails_are_filtered_by_state_and_kind(client: Client, database: Database) -> None:
    admin = await client.admin()
    await queue(database, "waiting@example.com")
    [sent_id] = await queue(database, "sent@example.com")
    [dead_id] = await queue(database, "dead@example.com")
    async with database.begin() as session:
        claimed = await outbox.claim(session, mail_id=sent_id)
        assert claimed is not None
        await outbox.mark_sent(session, claimed=claimed)
    await give_up(database, dead_id)
    everybody = {admin.email, "waiting@example.com", "sent@example.com", "dead@example.com"}

    async def recipients(**query: str) -> set[str]:
        return {mail["recipient"] for mail in await list_mails(admin, **query)}

    assert await recipients() == everybody
    assert await recipients(state="pending") == {admin.email, "waiting@example.com"}
    assert await recipients(state="sent") == {"sent@example.com"}
    assert await recipients(state="dead", kind="welcome") == {"dead@example.com"}
    assert await recipients(kind="welcome") == everybody
    assert (await admin.get("/outbox", params={"state": "lost"})).status_code == 422
    [dead] = await list_mails(admin, state="dead")
    assert (dead["next_attempt_at"], dead["last_error"]) == (None, "550 nobody here")


async def test_the_outbox_is_walked_newest_first_by_page_and_by_cursor(
    client: Client, database: Database
) -> None:
    reader = await client.user_with(Permission.outbox_read)
    people = [f"person{number}@example.com" for number in range(4)]
    for person in people:
        await queue(database, person)
    expected = [*reversed(people), reader.email]
    first = (await reader.get("/outbox", params={"page_size": 3})).json()
    rest = await list_mails(reader, page_size=3, cursor=first["next_cursor"])
    assert [mail["recipient"] for mail in [*first["items"], *rest]] == expected
    assert first["total"] == 5
    oldest = await list_mails(reader, sort="created_at")
    assert [mail["recipient"] for mail in oldest] == expected[::-1]


async def test_a_dead_mail_is_tried_again_with_all_its_attempts(
    client: Client, database: Database, settings: Settings, tmp_path: Path
) -> None:
    admin = await client.admin()
    [mail_id] = await queue(database, "dead@example.com")
    await give_up(database, mail_id)
    retried = await admin.post(f"/outbox/{mail_id}/retry")
    assert retried.status_code == 202
    assert (retried.json()["state"], retried.json()["attempts"]) == ("pending", 0)
    assert retried.json()["next_attempt_at"]
    await Dispatcher(database, FolderMailer(tmp_path), settings).deliver(mail_id)
    assert (await stored(database, mail_id)).state == MailState.sent
    again = await admin.post(f"/outbox/{mail_id}/retry")
    assert (again.status_code, again.json()["code"]) == (409, "mail_already_sent")


async def test_a_waiting_mail_is_made_due_by_a_retry(client: Client, database: Database) -> None:
    admin = await client.admin()
    [mail_id] = await queue(database, "waiting@example.com")
    await make_due(database, mail_id, (await stored(database, mail_id)).created_at.replace(2999))
    async with database.begin(readonly=True) as session:
        assert mail_id not in await outbox.due(session, limit=10)
    assert (await admin.post(f"/outbox/{mail_id}/retry")).status_code == 202
    async with database.begin(readonly=True) as session:
        assert mail_id in await outbox.due(session, limit=10)


async def test_a_mail_that_is_being_sent_is_left_to_it(client: Client, database: Database) -> None:
    """A4: a retry must not send it a second time."""
    admin = await client.admin()
    [mail_id] = await queue(database, "sending@example.com")
    async with database.begin() as session:
        claimed = await outbox.claim(session, mail_id=mail_id)
    assert claimed is not None
    retried = await admin.post(f"/outbox/{mail_id}/retry")
    assert (retried.status_code, retried.json()["state"]) == (202, "sending")
    assert (await stored(database, mail_id)).next_attempt_at == claimed.next_attempt_at
    async with database.begin(readonly=True) as session:
        assert mail_id not in await outbox.due(session, limit=10)


async def test_who_lost_a_mail_to_another_process_writes_nothing_down(
    database: Database,
) -> None:
    [mail_id] = await queue(database, "twice@example.com")
    async with database.begin() as session:
        first = await outbox.claim(session, mail_id=mail_id)
    await make_due(database, mail_id)
    async with database.begin() as session:
        second = await outbox.claim(session, mail_id=mail_id)
    assert first is not None
    assert second is not None
    async with database.begin() as session:
        await outbox.mark_sent(session, claimed=second)
    async with database.begin() as session:
        await outbox.mark_sent(session, claimed=first)
        await outbox.mark_failed(session, claimed=first, reason="late", failure=Failure.unreachable)
    mail = await stored(database, mail_id)
    assert (mail.state, mail.attempts, mail.last_error) == (MailState.sent, 2, None)


async def test_a_claim_is_known_by_its_lease(database: Database) -> None:
    """Not by the number of attempts, which an administrator may begin anew."""
    [mail_id] = await queue(database, "slow@example.com")
    async with database.begin() as session:
        first = await outbox.claim(session, mail_id=mail_id)
    assert first is not None
    await make_due(database, mail_id)
    async with database.begin() as session:
        second = await outbox.claim(session, mail_id=mail_id)
        assert second is not None
    async with database.begin() as session:
        await outbox.mark_failed(session, claimed=second, reason="", failure=Failure.refused)
    async with database.begin() as session:
        await outbox.retry(session, mail_id=mail_id)
    async with database.begin() as session:
        third = await outbox.claim(session, mail_id=mail_id)
    assert third is not None
    assert third.attempts == first.attempts
    async with database.begin() as session:
        await outbox.mark_failed(session, claimed=first, reason="", failure=Failure.refused)
    async with database.begin() as session:
        await outbox.mark_sent(session, claimed=third)
    assert (await stored(database, mail_id)).state == MailState.sent


async def test_any_answer_of_a_mail_server_can_be_kept(database: Database) -> None:
    [mail_id] = await queue(database, "grey@example.com")
    async with database.begin() as session:
        mail = await outbox.claim(session, mail_id=mail_id)
    assert mail is not None
    reason = "451 m\udce1s tarde\0\r\n\x1b[2J" + "\U0001f4a9" * 5000
    async with database.begin() as session:
        await outbox.mark_failed(session, claimed=mail, reason=reason, failure=Failure.deferred)
    kept = await stored(database, mail_id)
    assert kept.state == MailState.pending
    assert kept.last_error is not None
    assert kept.last_error.startswith("451 m?s tarde    [2J\U0001f4a9")


async def test_a_mail_that_ends_every_process_is_given_up(database: Database) -> None:
    [mail_id] = await queue(database, "crash@example.com")
    for _ in range(outbox.MAX_ATTEMPTS):
        async with database.begin() as session:
            assert await outbox.claim(session, mail_id=mail_id) is not None
        await make_due(database, mail_id)
    async with database.begin() as session:
        assert await outbox.claim(session, mail_id=mail_id) is None
    mail = await stored(database, mail_id)
    assert (mail.state, mail.attempts) == (MailState.dead, outbox.MAX_ATTEMPTS)


async def test_a_mail_that_does_not_exist_cannot_be_tried_again(client: Client) -> None:
    admin = await client.admin()
    assert (await admin.post(f"/outbox/{2**63 - 1}/retry")).status_code == 404
    assert (await admin.post("/outbox/0/retry")).status_code == 422


async def test_reading_the_outbox_does_not_permit_to_retry(
    client: Client, database: Database
) -> None:
    reader = await client.user_with(Permission.outbox_read)
    [mail_id] = await queue(database, "waiting@example.com")
    assert (await reader.get("/outbox")).status_code == 200
    refused = await reader.post(f"/outbox/{mail_id}/retry")
    assert (refused.status_code, refused.json()["code"]) == (403, "insufficient_scope")
    assert Permission.outbox_write in refused.json()["detail"]


async def test_a_deleted_users_mail_stays_listed(client: Client, database: Database) -> None:
    admin = await client.admin()
    account = await client.register()
    assert (await admin.delete(f"/users/{account['id']}")).status_code == 204
    assert account["email"] in {mail["recipient"] for mail in await list_mails(admin)}
    assert await count(database) == 2
