"""A link that sets a password is worth what its owner's account is: with more permissions there is
another link, which those who could read the first one cannot read."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest

from app.core.permissions import ADMIN_ROLE, USER_ROLE, Permission
from app.crud import one_time_tokens
from app.models.base import utc_now
from app.models.outbox import MailKind
from tests.support.apps import client_of
from tests.support.client import Client, Person
from tests.support.links import LINK, forgotten, kinds_to, token_to

pytestmark = pytest.mark.usefixtures("hurried")
NEW = "Another-Horse-8"
SITES: dict[str, dict[str, object]] = {
    "development": {},
    "production": {
        "environment": "production",
        "public_url": "https://api.example.com",
        "rate_limit_disabled_on_purpose": True,
    },
}


async def invited(by: Client, email: str = "ana@example.com") -> int:
    response = await by.post("/users", {"email": email, "name": "Ana"})
    assert response.status_code == 201
    user_id: int = response.json()["id"]
    return user_id


async def role_ids(admin: Client) -> dict[str, int]:
    return {role["name"]: role["id"] for role in (await admin.get("/roles")).json()["items"]}


async def role_of(admin: Client, *permissions: Permission) -> int:
    body = {"name": f"role {len(await role_ids(admin))}", "permissions": [*permissions]}
    response = await admin.post("/roles", body)
    assert response.status_code == 201, response.text
    role_id: int = response.json()["id"]
    return role_id


async def give(admin: Client, user_id: int, role_id: int) -> None:
    assert (await admin.put(f"/users/{user_id}/roles/{role_id}")).status_code == 204


async def opens(client: Client, token: str) -> bool:
    """Whether a link sets a password."""
    body = {"token": token, "password": NEW}
    status = (await client.http.post("/api/v1/auth/password/reset", json=body)).status_code
    assert status in {204, 400}
    return status == 204


async def links_seen(reader: Client, email: str) -> set[str]:
    """Return the tokens in the mails to an address, as the outbox shows them."""
    mails = (await reader.get("/outbox")).json()["items"]
    texts = [mail["text"] or "" for mail in mails if mail["recipient"] == email]
    return {token for text in texts for _, _, token in LINK.findall(text)}


@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("by", ["invitation", "forgotten password"])
async def test_a_link_seen_before_a_promotion_opens_no_admins_account(
    client: Client, tmp_path: Path, site: str, by: str
) -> None:
    admin = await client.admin()
    mole = await client.user_with(
        Permission.outbox_read, Permission.users_read, Permission.users_write
    )
    async with client_of(client, tmp_path, **SITES[site]) as elsewhere:
        boss, seeing = (
            Person(elsewhere.http, elsewhere.app, client.contract, who.headers)
            for who in (admin, mole)
        )
        user_id, email, kind = await invited(boss), "ana@example.com", MailKind.invitation
        if by != "invitation":
            assert await opens(elsewhere, await token_to(elsewhere, email))
            await forgotten(elsewhere, email=email)
            kind = MailKind.password_reset
        seen = await links_seen(seeing, email)
        stolen = await token_to(elsewhere, email)
        assert stolen in seen
        await give(boss, user_id, (await role_ids(boss))[ADMIN_ROLE])
        assert not await opens(seeing, stolen)
        fresh = await token_to(elsewhere, email)
        assert fresh not in seen
        assert not await links_seen(seeing, email)
        assert (await kinds_to(elsewhere, email))[-1] == kind
        # Who is invited and promoted gets in, by their own mail.
        assert await opens(elsewhere, fresh)


async def test_both_kinds_of_links_are_replaced_each_by_its_own(client: Client) -> None:
    admin = await client.admin()
    user_id, email = await invited(admin), "ana@example.com"
    old = [await token_to(client, email), await forgotten(client, email=email)]
    await give(admin, user_id, await role_of(admin, Permission.audit_read))
    assert (await kinds_to(client, email))[2:] == [MailKind.invitation, MailKind.password_reset]
    assert [await opens(client, token) for token in old] == [False, False]


async def test_what_adds_nothing_leaves_links_alone(client: Client) -> None:
    """A role that is held already, one that permits no more than others do, or only writing."""
    admin = await client.admin()
    user_id, email = await invited(admin), "ana@example.com"
    first, second = [await role_of(admin, Permission.audit_read) for _ in range(2)]
    writing = await role_of(admin, Permission.posts_write)
    await give(admin, user_id, first)
    mails = await kinds_to(client, email)
    for role_id in (first, second, writing, (await role_ids(admin))[USER_ROLE]):
        await give(admin, user_id, role_id)
    assert await kinds_to(client, email) == mails == [MailKind.invitation] * 2
    assert await opens(client, await token_to(client, email))


async def test_no_mail_where_there_is_no_link(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Used up, too old, withdrawn with a disabled account, or for something else."""
    admin = await client.admin()
    used, old, off = [await invited(admin, f"{name}@example.com") for name in ("u", "o", "d")]
    assert await opens(client, await token_to(client, "u@example.com"))
    registered = await client.user(email="registered@example.com")  # its address is to be confirmed
    await admin.patch(f"/users/{off}", {"is_active": False})
    await admin.patch(f"/users/{off}", {"is_active": True})
    confirming = await token_to(client, registered.email)
    role_id = await role_of(admin, Permission.audit_read)
    emails = [f"{name}@example.com" for name in ("u", "o", "d", "registered")]
    before = [await kinds_to(client, email) for email in emails]
    with monkeypatch.context() as patched:
        patched.setattr(one_time_tokens, "utc_now", lambda: utc_now() + timedelta(days=8))
        await give(admin, old, role_id)
    for user_id in (used, off, registered.id):
        await give(admin, user_id, role_id)
    assert [await kinds_to(client, email) for email in emails] == before
    confirmed = await client.post("/auth/email/verify", {"token": confirming})
    assert confirmed.status_code == 204


async def test_a_role_that_grants_more_ends_the_links_of_all_who_have_it(client: Client) -> None:
    """Without a mail: there may be very many. Who is invited may ask for a link."""
    admin = await client.admin()
    role_id = await role_of(admin, Permission.posts_write)
    emails = [f"holder{number}@example.com" for number in range(3)]
    for email in emails:
        await give(admin, await invited(admin, email), role_id)
    await invited(admin, "other@example.com")
    tokens = [await token_to(client, email) for email in [*emails, "other@example.com"]]
    changes: tuple[dict[str, object], ...] = (
        {"description": "Other"},
        {"permissions": []},
        {"permissions": ["posts:write"]},
    )
    for change in changes:
        assert (await admin.patch(f"/roles/{role_id}", change)).status_code == 200
    assert await opens(client, tokens[0])
    more = {"permissions": ["posts:write", "users:read"]}
    assert (await admin.patch(f"/roles/{role_id}", more)).status_code == 200
    assert [await opens(client, token) for token in tokens[1:]] == [False, False, True]
    assert await kinds_to(client, emails[1]) == [MailKind.invitation]
    assert await opens(client, await forgotten(client, email=emails[1]))


async def test_the_role_of_everybody_ends_the_links_of_everybody(client: Client) -> None:
    admin = await client.admin()
    await invited(admin)
    token = await token_to(client, "ana@example.com")
    path = f"/roles/{(await role_ids(admin))[USER_ROLE]}"
    kept = (await admin.get(path)).json()["permissions"]
    try:
        more = {"permissions": [*kept, "outbox:read"]}
        assert (await admin.patch(path, more)).status_code == 200
    finally:
        # System roles stay from test to test.
        assert (await admin.patch(path, {"permissions": kept})).status_code == 200
    assert not await opens(client, token)


async def test_of_a_link_and_a_promotion_at_once_none_is_left_that_was_seen(
    client: Client,
) -> None:
    """Whichever comes first: the link that works is newer than the role, or was replaced by it."""
    admin = await client.admin()
    role_id = await role_of(admin, Permission.audit_read)
    for number in range(5):
        email = f"racer{number}@example.com"
        user_id = await invited(admin, email)
        old = await token_to(client, email)
        _, used = await asyncio.gather(give(admin, user_id, role_id), opens(client, old))
        fresh = await token_to(client, email) if not used else None
        assert fresh != old
        assert fresh is None or await opens(client, fresh)
