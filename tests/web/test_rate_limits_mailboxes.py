"""Limits of mails to one mailbox: sub-addresses of an address share them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from app.core.groups import mailbox_of
from app.rate_limits.rules import LimitedAction
from tests.support import links, mails
from tests.support.client import PASSWORD, Client, Person
from tests.support.rate_limits import (
    ELSEWHERE,
    HOME,
    at,
    fail_to_login,
    rate_limited,
    strangers,
)


@pytest.fixture
async def client(client: Client, tmp_path: Path) -> AsyncIterator[Client]:
    """A client of an app that limits attempts."""
    async with rate_limited(client, tmp_path) as limited:
        yield limited


# --- Mails to one mailbox --------------------------------------------------------------------


async def test_sub_addresses_are_registered_as_one(client: Client) -> None:
    """Each is welcomed by a mail, to the same person."""
    tagged = ["ana@example.com", "ana+1@example.com", "Ana+x+y@EXAMPLE.com", "ana+2@example.com"]
    statuses = []
    for number, email in enumerate([*tagged, "ana+@example.com", "anna@example.com"]):
        body = {"email": email, "name": "Ana", "password": PASSWORD}
        answer = await at(client, f"10.0.0.{number}").post("/auth/register", body)
        statuses.append(answer.status_code)
    assert statuses == [201] * 3 + [429] * 2 + [201]
    # An account is counted by its own address, sub-address and all.
    assert await fail_to_login(client, tagged[0], ips=strangers(11)) == [401] * 10 + [429]
    assert await fail_to_login(client, tagged[1], ips=strangers(11)[10:]) == [401]


async def test_a_mailbox_gets_three_mails_an_hour(client: Client) -> None:
    limiter = client.app.state.rate_limiter
    sent = [
        await limiter.attempt(action, ip=ip).may_mail(address)
        for action, ip, address in zip(
            [LimitedAction.forgot, LimitedAction.resend, LimitedAction.password] * 2,
            strangers(6),
            [f"ana+{number}@example.com" for number in range(5)] + ["ana@example.com"],
            strict=True,
        )
    ]
    assert sent == [True] * 3 + [False] * 3
    assert await limiter.attempt(LimitedAction.forgot, ip=HOME).may_mail("ana@example.org")


async def _forget(client: Client, *emails: str) -> int:
    """How many mails that are asked for are sent, each from another network."""
    before = await mails.count(client.database)
    for ip, email in zip(strangers(20), emails, strict=False):
        answer = await at(client, ip).post("/auth/password/forgot", {"email": email})
        assert answer.status_code == 202
    return await mails.count(client.database) - before


async def _register(client: Client, email: str, ip: str) -> Person:
    body = {"email": email, "name": "Ana", "password": PASSWORD}
    answer = await at(client, ip).post("/auth/register", body)
    assert answer.status_code == 201
    return await at(client, ip).person(answer.json())


@pytest.mark.usefixtures("hurried")
async def test_accounts_of_one_mailbox_share_its_mails(client: Client) -> None:
    for number in range(3):
        await _register(client, f"ana+{number}@example.com", HOME)
    assert await _forget(client, *(f"ana+{n % 3}@example.com" for n in range(8))) == 3


@pytest.mark.usefixtures("hurried")
async def test_strangers_do_not_use_up_the_mails_of_a_confirmed_address(client: Client) -> None:
    """Neither by unused sub-addresses, nor by accounts that they registered with them."""
    await _register(client, "ana@example.com", HOME)
    token = await links.token_to(client, "ana@example.com")
    confirmed = await at(client, HOME).post("/auth/email/verify", {"token": token})
    assert confirmed.status_code == 204
    thief = await _register(client, "ana+thief@example.com", ELSEWHERE)
    assert await _forget(client, *[thief.email] * 5) == 3
    assert await _forget(client, *(f"ana+{n}@example.com" for n in range(10))) == 0
    assert await _forget(client, *["ana@example.com"] * 5) == 3


@pytest.mark.parametrize(
    ("address", "mailbox"),
    [
        ("ana@example.com", "ana@example.com"),
        ("ana+shop@example.com", "ana@example.com"),
        ("ana+shop+2@example.com", "ana@example.com"),
        ("ana+@example.com", "ana@example.com"),
        # Dots tell people apart at most hosts.
        ("a.na@example.com", "a.na@example.com"),
        ("+1@example.com", "+1@example.com"),
        ("+1+2@example.com", "+1@example.com"),
        ("o'hara@exa+mple.com", "o'hara@exa+mple.com"),
    ],
)
def test_mailboxes(address: str, mailbox: str) -> None:
    assert mailbox_of(address) == mailbox
