"""Who may read the texts of mails in the outbox, whose links open accounts."""

from __future__ import annotations

import itertools
import stat
from dataclasses import dataclass
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import httpx2
import pytest
from sqlalchemy import delete, select, update

from app.config import Settings
from app.core.permissions import ADMIN_ROLE, USER_ROLE, Permission
from app.crud import one_time_tokens, outbox
from app.crud.outbox import Failure
from app.models.base import INCLUDE_DELETED
from app.models.one_time_tokens import Purpose
from app.models.outbox import Mail, MailKind
from app.models.roles import Role, RolePermission
from app.models.users import User, UserRole
from app.tasks.dispatcher import Dispatcher
from app.tasks.mail import FolderMailer, NotSent
from tests.support.apps import client_of
from tests.support.client import Client, Person
from tests.support.links import forgotten
from tests.support.listings import walk
from tests.support.mails import mail_to, stored
from tests.support.people import granting, new_user, new_users, user_with

pytestmark = pytest.mark.usefixtures("hurried")

READ, WRITE, MANAGE = Permission.outbox_read, Permission.outbox_write, Permission.users_write
LINKED = {
    MailKind.welcome: Purpose.verify_email,
    MailKind.verify_email: Purpose.verify_email,
    MailKind.invitation: Purpose.invitation,
    MailKind.password_reset: Purpose.reset_password,
    MailKind.email_change: Purpose.change_email,
}
OTHERS = set(MailKind) - set(LINKED)
_PRODUCTION: dict[str, object] = {
    "environment": "production",
    "public_url": "https://api.example.com",
    "rate_limit_disabled_on_purpose": True,
}
_SMTP: dict[str, object] = {"smtp_host": "mail.example.com"}
SITES: dict[str, dict[str, object]] = {
    "development": {},
    "development with SMTP": _SMTP,
    "production": _PRODUCTION,
    "production with SMTP": _PRODUCTION | _SMTP,
}


@dataclass
class Recipient:
    """A user who has mails of every kind, and what the links in them carry."""

    person: Person
    tokens: set[str]


@pytest.fixture
async def recipients(client: Client) -> dict[str, Recipient]:
    """Users from the highest to the lowest. `peer` has a permission twice, by two roles."""
    twice = granting(MANAGE, Permission.audit_read), granting(MANAGE, Permission.posts_write)
    admin, peer, lesser, bare = await new_users(
        client, [ADMIN_ROLE, USER_ROLE], [*twice], [USER_ROLE], []
    )
    people = {"admin": admin, "peer": peer, "lesser": lesser, "bare": bare}
    return {
        name: Recipient(person, await mailed(client, person)) for name, person in people.items()
    }


async def mailed(client: Client, person: Person) -> set[str]:
    """Queue a mail of every kind to the person; return the tokens of their links."""
    keys, tokens = client.app.state.settings.keys, set()
    async with client.database.begin() as session:
        user = await session.get_one(User, person.id)
        values = {
            purpose: await one_time_tokens.issue(session, keys=keys, user=user, purpose=purpose)
            for purpose in Purpose
        }
        for kind, purpose in LINKED.items():
            recipient = f"new-{user.id}@example.org" if kind == MailKind.email_change else None
            outbox.enqueue(session, kind, user, recipient=recipient, **values[purpose])
            tokens.add(str(one_time_tokens.token_of(keys, values[purpose])))
        for kind in OTHERS:
            outbox.enqueue(session, kind, user, new_email=f"new-{user.id}@example.org")
    assert len(tokens) == len(Purpose)
    return tokens


async def everything(reader: Person) -> list[httpx2.Response]:
    """Return every answer about mails that the reader can get, granted or refused."""
    answers = [await reader.get("/outbox", params={"page_size": 30})]
    tag = answers[0].headers.get("etag", "*")
    if answers[0].status_code == 200:
        answers += [
            await reader.get("/outbox", params={"page_size": 30}, headers={"If-None-Match": tag}),
            await reader.request("HEAD", "/outbox"),
            await reader.get("/outbox", params={"kind": "password_reset", "sort": "created_at"}),
            await reader.get("/outbox", params={"page": 2, "page_size": 5, "state": "pending"}),
            await reader.get(
                "/outbox", params={"page_size": 30, "cursor": answers[0].json()["next_cursor"]}
            ),
        ]
    async with reader.database.begin(readonly=True) as session:
        # The highest and the lowest recipient's.
        newest_last = list(await session.scalars(select(Mail.id).order_by(Mail.id)))
    ids = newest_last[: len(MailKind)] + newest_last[-len(MailKind) :]
    first = await reader.post(f"/outbox/{ids.pop()}/retry")
    if first.status_code == 403:
        return [*answers, first]
    answers += [first] + [await reader.post(f"/outbox/{mail_id}/retry") for mail_id in ids]
    return answers


def shown_tokens(answers: list[httpx2.Response], recipients: dict[str, Recipient]) -> set[str]:
    """Whose links stand in any answer, body or header."""
    texts = [f"{answer.headers!r}\n{answer.text}" for answer in answers]
    return {
        name
        for name, recipient in recipients.items()
        if any(token in text for token in recipient.tokens for text in texts)
    }


async def mails_of(reader: Person, person: Person) -> list[dict[str, Any]]:
    """Return the mails to the person, as the reader sees them."""
    return of_person([page async for page in walk(reader, "/outbox", page_size=30)], person)


def of_person(pages: list[list[dict[str, Any]]], person: Person) -> list[dict[str, Any]]:
    addresses = {person.email, f"new-{person.id}@example.org"}
    return [mail for page in pages for mail in page if mail["recipient"] in addresses]


# Who asks, and whose mails they may read: of those whom they may edit.
READERS: dict[str, tuple[set[Permission], set[str]]] = {
    "reads": ({READ}, set()),
    "writes": ({WRITE}, set()),
    "reads and writes": ({READ, WRITE}, set()),
    "manages, reads": ({READ, MANAGE}, {"lesser", "bare"}),
    "manages, writes": ({WRITE, MANAGE}, set()),
    "manages, reads and writes": ({READ, WRITE, MANAGE}, {"lesser", "bare"}),
    "manages peers": ({READ, MANAGE, Permission.audit_read}, {"peer", "lesser", "bare"}),
    "holds all but users:write": ({*Permission} - {MANAGE}, set()),
    "holds all but one": ({*Permission} - {Permission.roles_read}, {"peer", "lesser", "bare"}),
    "holds all": ({*Permission}, {"admin", "peer", "lesser", "bare"}),
}


@pytest.mark.parametrize("site", SITES)
async def test_links_are_seen_by_those_who_may_manage_the_recipient_alone(
    client: Client, recipients: dict[str, Recipient], tmp_path: Path, site: str
) -> None:
    """A user who reads an administrator's link can become administrator."""
    has_server, is_production = "SMTP" in site, site.startswith("production")
    async with client_of(client, tmp_path, **SITES[site]) as elsewhere:
        for name, (permissions, managed) in READERS.items():
            reader = await user_with(elsewhere, *permissions)
            answers = await everything(reader)
            expected = set() if has_server else managed
            assert shown_tokens(answers, recipients) == expected, name
            if READ not in permissions:
                continue
            pages = [page async for page in walk(reader, "/outbox", page_size=30)]
            for who, recipient in recipients.items():
                mails = of_person(pages, recipient.person)
                assert {mail["kind"] for mail in mails} == set(MailKind)
                may_read = not has_server and (who in managed or not is_production)
                for mail in mails:
                    texts = [mail["text"], mail["html"]]
                    assert [text is not None for text in texts] == [may_read] * 2, (name, who)


async def test_in_development_a_link_is_left_out_of_its_text_alone(
    client: Client, recipients: dict[str, Recipient]
) -> None:
    """The rest of the mail is there, in its language, with what stands in the link's place."""
    reader, ana = await user_with(client, READ), recipients["lesser"].person
    for locale, words in (("en", "This link is shown only"), ("es", "Este enlace solo lo ven")):
        async with client.database.begin() as session:
            await session.execute(update(Mail).values(locale=locale))
        for mail in await mails_of(reader, ana):
            for text in (mail["text"], mail["html"]):
                assert ana.account["name"] in text
                assert (words in text) is (mail["kind"] in LINKED)
                assert "/account/" not in text
                assert "<a " not in text


async def test_nobody_reads_their_own_links_by_reading_the_outbox_alone(client: Client) -> None:
    """A stolen access token with `outbox:read` would else be good for a new password."""
    reader = await user_with(client, READ)
    token = await forgotten(client, email=reader.email)
    assert token not in (await reader.get("/outbox")).text
    manager = await user_with(client, READ, MANAGE)
    token = await forgotten(client, email=manager.email)
    assert token in (await manager.get("/outbox")).text


async def test_a_retry_shows_no_text_to_anybody(client: Client) -> None:
    """`outbox:write` alone, and the administrator: the answer has the state of the delivery."""
    admin = await client.admin()
    writer = await user_with(client, WRITE)
    mail = await mail_to(client.database, admin.email)
    for person in (admin, writer):
        answer = await person.post(f"/outbox/{mail.id}/retry")
        assert answer.status_code == 202
        shown = answer.json()
        assert (shown["text"], shown["html"]) == (None, None)
        assert (shown["id"], shown["state"], shown["subject"]) == (
            mail.id,
            "pending",
            "Welcome, Root",
        )


# --- What counts is who the recipient is now -----------------------------------------------------


async def test_a_recipient_who_rises_is_out_of_reach_at_once(client: Client) -> None:
    """By a role that is given, or one that grants more; and comes back when it is taken."""
    root, reader = await new_user(client, [ADMIN_ROLE]), await user_with(client, READ, MANAGE)
    role = granting(Permission.posts_write)
    (ana,) = await new_users(client, [role])
    token = await forgotten(client, email=ana.email)
    admin_id = next(
        each["id"] for each in (await root.get("/roles")).json()["items"] if each["name"] == "admin"
    )

    async def is_seen() -> bool:
        return token in (await reader.get("/outbox")).text

    assert await is_seen()
    assert (await root.put(f"/users/{ana.id}/roles/{admin_id}")).status_code == 204
    assert not await is_seen()
    assert (await root.delete(f"/users/{ana.id}/roles/{admin_id}")).status_code == 204
    assert await is_seen()
    for granted, seen in ((["posts:write", "roles:read"], False), (["posts:write"], True)):
        changed = await root.patch(f"/roles/{role.id}", {"permissions": granted})
        assert changed.status_code == 200
        assert await is_seen() is seen


async def test_a_reader_who_falls_reads_no_more(client: Client) -> None:
    """The permission is taken away, with the page remembered or not."""
    root = await new_user(client, [ADMIN_ROLE])
    role = granting(READ, MANAGE)
    (reader,) = await new_users(client, [role])
    ana = await new_user(client)
    token = await forgotten(client, email=ana.email)
    before = await reader.get("/outbox")
    assert token in before.text
    changed = await root.patch(f"/roles/{role.id}", {"permissions": ["outbox:read"]})
    assert changed.status_code == 200
    after = await reader.get(
        "/outbox", headers={"If-None-Match": before.headers.get("etag", '"none"')}
    )
    assert after.status_code == 200
    assert token not in after.text


async def test_mails_to_the_trash_keep_to_the_same_rule(client: Client, tmp_path: Path) -> None:
    """A deleted administrator is as far away as before: who may not restore them reads nothing."""
    reader = await user_with(client, READ, MANAGE)
    async with client_of(client, tmp_path, **SITES["production"]) as elsewhere:
        for roles, may_read in (([ADMIN_ROLE], False), ([USER_ROLE], True)):
            gone = await new_user(client, roles)
            token = await forgotten(client, email=gone.email)
            async with client.database.begin() as session:
                (await session.get_one(User, gone.id)).soft_delete()
            production = Person(elsewhere.http, elsewhere.app, client.contract, reader.headers)
            [mail] = await mails_of(production, gone)
            assert (mail["text"] is not None) is may_read
            assert token not in (mail["text"] or "") or may_read
            restored = await reader.post(f"/users/{gone.id}/restore")
            assert restored.status_code == (200 if may_read else 403)


async def test_a_mail_whose_recipient_is_gone_for_good_is_nobodys(
    client: Client, tmp_path: Path
) -> None:
    """Nobody can be managed who is not there: no text in production, no link in development."""
    ana, root = await new_user(client), await new_user(client, [ADMIN_ROLE])
    token = await forgotten(client, email=ana.email)
    async with client.database.begin() as session:
        await session.execute(delete(UserRole).where(UserRole.user_id == ana.id))
        await session.execute(
            delete(User).where(User.id == ana.id),
            execution_options={INCLUDE_DELETED: True, "synchronize_session": False},
        )
    [mail] = await mails_of(root, ana)
    assert mail["text"]
    assert token not in mail["text"]
    async with client_of(client, tmp_path, **SITES["production"]) as elsewhere:
        production = Person(elsewhere.http, elsewhere.app, client.contract, root.headers)
        [mail] = await mails_of(production, ana)
    assert (mail["text"], mail["html"]) == (None, None)


async def test_a_recipient_with_very_many_roles_is_seen_whole(client: Client) -> None:
    """However long the list of what they may do: MariaDB cuts texts that are put together."""
    root, reader = await new_user(client, [ADMIN_ROLE]), await user_with(client, READ, MANAGE)
    all_but_one = sorted({*Permission} - {Permission.roles_read})
    many = [Role(name=f"{number:02}".ljust(50, "x")) for number in range(200)]
    for role in many:
        role.granted = [RolePermission(permission=name) for name in all_but_one]
    (ana,) = await new_users(client, [*many, ADMIN_ROLE])
    token = await forgotten(client, email=ana.email)
    assert token not in (await reader.get("/outbox")).text
    assert token in (await root.get("/outbox")).text


# --- Where else a text could go ------------------------------------------------------------------


@pytest.mark.parametrize("cut", [str, str.upper, lambda link: link.replace("#", "%23")])
async def test_what_a_mail_server_quotes_is_kept_without_the_link(client: Client, cut: Any) -> None:
    """Spam filters name the link that they do not like; `last_error` is for everybody who reads
    the outbox. Also what was written down before this rule."""
    root = await new_user(client, [ADMIN_ROLE])
    token = await forgotten(client, email=root.email)
    mail = await mail_to(client.database, root.email)
    link = f"http://127.0.0.1:8000/account/reset-password#{token}"
    quoted = f"554 5.7.1 4D3xQ2: rejected, listed: {cut(link)} (see RFC)"

    class Mailer:
        async def send(self, _: EmailMessage) -> None:
            raise NotSent(Failure.refused, quoted)

    await Dispatcher(client.database, Mailer(), client.app.state.settings).deliver(mail.id)
    kept = (await stored(client.database, mail.id)).last_error or ""
    assert kept.startswith("554 5.7.1 4D3xQ2: rejected, listed: ")
    assert kept.endswith("… (see RFC)")
    assert token not in kept.lower()
    async with client.database.begin() as session:
        await session.execute(update(Mail).values(last_error=quoted[:300]))
    reader, writer = await user_with(client, READ), await user_with(client, WRITE)
    shown = [await reader.get("/outbox"), await writer.post(f"/outbox/{mail.id}/retry")]
    assert all(token not in answer.text.lower() for answer in shown)


async def test_the_files_of_the_mailbox_are_for_their_owner_alone(
    client: Client, settings: Settings, tmp_path: Path
) -> None:
    """Whatever the process's umask lets others read."""
    account = await client.register()
    mail = await mail_to(client.database, account["email"])
    folder = tmp_path / "state" / "mail"
    await Dispatcher(client.database, FolderMailer(folder), settings).deliver(mail.id)
    [file] = folder.iterdir()
    assert [stat.S_IMODE(path.stat().st_mode) for path in (folder, file)] == [0o700, 0o600]


def test_the_matrix_has_every_mix_of_the_outboxs_permissions() -> None:
    """Each alone and both, with and without the right to manage."""
    mixes = {
        frozenset(mix) for size in (1, 2) for mix in itertools.combinations([READ, WRITE], size)
    }
    wanted = mixes | {mix | {MANAGE} for mix in mixes}
    assert wanted <= {frozenset(permissions) for permissions, _ in READERS.values()}
    assert set(LINKED) | OTHERS == set(MailKind)
