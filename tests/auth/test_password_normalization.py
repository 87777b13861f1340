"""A password matches in every Unicode normalization form."""

from __future__ import annotations

import unicodedata
from typing import Any

import bcrypt
import pytest
from sqlalchemy import select, update

from app.core.passwords import MAX_PASSWORD, Policy, weaknesses
from app.core.security import Passwords
from app.models.users import User
from tests.conftest import CHEAP
from tests.support.client import Client

TYPED = "Contraseña-Ñandú-7"
DECOMPOSED = unicodedata.normalize("NFD", TYPED)
NEW = "Murciélago-Ñandú-8"


async def logs_in(client: Client, email: str, password: str) -> bool:
    form = {"username": email, "password": password}
    response = await client.request("POST", "/auth/login", data=form)
    assert response.status_code in {200, 401}
    return response.status_code == 200


async def stored(client: Client, user_id: int) -> str | None:
    async with client.database.begin(readonly=True) as session:
        found: str | None = await session.scalar(
            select(User.password_hash).where(User.id == user_id)
        )
    return found


@pytest.mark.parametrize(
    ("chosen", "others"),
    [
        (TYPED, [DECOMPOSED]),
        (DECOMPOSED, [TYPED]),
        ("\uff21\uff22\uff23-lantern-\uff17", ["ABC-lantern-7"]),
        ("Of\N{LATIN SMALL LIGATURE FI}ce-lantern-7", ["Office-lantern-7"]),
    ],
)
async def test_every_form_of_a_password_opens_the_account(
    client: Client, chosen: str, others: list[str]
) -> None:
    account = await client.register(password=chosen)
    for form in (chosen, *others, chosen):
        assert await logs_in(client, account["email"], form), form
    for wrong in (chosen + "x", chosen.casefold(), unicodedata.normalize("NFD", chosen[:-1])):
        assert not await logs_in(client, account["email"], wrong)


async def test_the_present_password_is_known_in_every_form(client: Client) -> None:
    account = await client.register(password=TYPED)
    token = await client.login(account["email"], TYPED)
    headers = {"Authorization": f"Bearer {token}"}
    body = {
        "current_password": DECOMPOSED,
        "new_password": unicodedata.normalize("NFD", NEW),
    }
    response = await client.put("/users/me/password", body, headers=headers)
    assert response.status_code == 204
    assert await logs_in(client, account["email"], NEW)
    assert not await logs_in(client, account["email"], TYPED)


@pytest.mark.parametrize("scheme", ["argon2", "bcrypt"])
async def test_what_earlier_versions_hashed_still_opens_and_is_replaced(
    client: Client, scheme: str
) -> None:
    """They hashed what was sent: what was decomposed has to be sent so once more."""
    account = await client.register(password=TYPED)
    if scheme == "bcrypt":
        raw = bcrypt.hashpw(DECOMPOSED.encode(), bcrypt.gensalt(4)).decode()
    else:
        raw = Passwords(CHEAP)._context.hash(DECOMPOSED)
    async with client.database.begin() as session:
        await session.execute(
            update(User).where(User.id == account["id"]).values(password_hash=raw)
        )
    assert not await logs_in(client, account["email"], TYPED)
    assert not await logs_in(client, account["email"], DECOMPOSED + "x")
    assert await stored(client, account["id"]) == raw
    assert await logs_in(client, account["email"], DECOMPOSED)
    assert await stored(client, account["id"]) != raw
    assert await logs_in(client, account["email"], TYPED)
    assert await logs_in(client, account["email"], DECOMPOSED)


async def test_how_much_is_hashed_depends_on_what_was_sent_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    passwords = Passwords(CHEAP)
    known = await passwords.hash(TYPED)
    verify, calls = passwords._context.verify_and_update, 0

    def counting(*given: Any) -> Any:
        nonlocal calls
        calls += 1
        return verify(*given)

    monkeypatch.setattr(passwords._context, "verify_and_update", counting)
    for password, times in (
        (TYPED, 1),
        ("Wrong-Horse-7", 1),
        ("", 1),
        (DECOMPOSED, 2),
        (DECOMPOSED + "x", 2),
        ("\N{LATIN SMALL LETTER N}\u0303" * 600, 2),
    ):
        for account in (known, None, "damaged"):
            calls = 0
            matches, better = await passwords.verify(password, account)
            assert calls == times
            assert matches is (account == known and password in {TYPED, DECOMPOSED})
            assert better is None


async def test_the_longest_password_is_known_when_it_comes_decomposed() -> None:
    passwords = Passwords(CHEAP)
    longest = "Ñ7" + "ñ" * (MAX_PASSWORD - 2)
    known = await passwords.hash(longest)
    assert await passwords.verify(unicodedata.normalize("NFD", longest), known) == (True, None)
    assert await passwords.verify(longest[:-1], known) == (False, None)


def test_a_password_is_judged_as_it_is_kept() -> None:
    for form in ("NFC", "NFD", "NFKD"):
        short = unicodedata.normalize(form, "Ñandú-7")
        assert weaknesses(short, Policy.classic, "x@example.com") == ["password_too_short"]
