"""Sessions, links in mails and addresses, used on two nodes of a cluster at once."""

from __future__ import annotations

import itertools
import random
from collections.abc import Awaitable
from datetime import timedelta

import httpx2
import pytest
from sqlalchemy import Select, delete, func, insert, select, update

from app.core.permissions import ADMIN_ROLE, Permission
from app.crud.sessions import MAX_LIVE
from app.models.base import utc_now
from app.models.one_time_tokens import OneTimeToken, Purpose
from app.models.refresh_tokens import RefreshToken
from app.models.sessions import LoginSession
from app.models.users import User, email_key
from tests.faults.nodes import Nodes, Person, live_sessions
from tests.faults.report import Report
from tests.faults.rounds import Race, Round, run
from tests.support.client import PASSWORD

pytestmark = pytest.mark.faults

NEW_PASSWORD = "Another-Horse-8"
# How long the hashing of a password may take, before the transaction that the other one races.
HASHING_SECONDS = 0.15
_numbers = itertools.count(1)


def unused(who: Person, purpose: Purpose) -> Select[int]:
    """The links of a user that are good."""
    good = OneTimeToken.user_id == who.id, OneTimeToken.used_at.is_(None)
    count = select(func.count()).select_from(OneTimeToken)
    return count.where(*good, OneTimeToken.purpose == purpose)


def live_users(email: str) -> Select[int]:
    return select(func.count()).select_from(User).where(User.live_email == email_key(email))


def usable_tokens(who: Person) -> Select[int]:
    """Refresh tokens of live sessions that were not used."""
    mine = LoginSession.user_id == who.id, LoginSession.ended_at.is_(None)
    with_session = (
        select(func.count())
        .select_from(RefreshToken)
        .join(LoginSession, LoginSession.id == RefreshToken.session_id)
    )
    return with_session.where(*mine, RefreshToken.used_at.is_(None))


async def fresh(nodes: Nodes, who: Person) -> None:
    """An active account with its old password, one session and no links."""
    await nodes.change(
        delete(LoginSession).where(LoginSession.user_id == who.id),
        delete(OneTimeToken).where(OneTimeToken.user_id == who.id),
        update(User)
        .where(User.id == who.id)
        .values(is_active=True, deleted_at=None, password_hash=nodes.password_hash),
    )
    await nodes.log_in(who)


def some_time() -> float:
    """How late a quick request is sent, to meet one that hashes a password first."""
    return random.uniform(0, HASHING_SECONDS)


async def one_refresh_token_on_both_nodes(nodes: Nodes) -> Round:
    """One successor, which both receive."""
    ana = await nodes.person("user")

    async def once() -> bool:
        await fresh(nodes, ana)
        body = {"refresh_token": ana.refresh_token}
        first, second = await nodes.race(
            *(nodes.send(node, None, "POST", "/auth/refresh", body) for node in (0, 1))
        )
        tokens = {each.json()["refresh_token"] for each in (first, second) if each.is_success}
        return len(tokens) != 1 or await nodes.count(usable_tokens(ana)) != 1

    return once


async def logout_against_refresh(nodes: Nodes) -> Round:
    ana = await nodes.person("user")

    async def once() -> bool:
        await fresh(nodes, ana)
        body = {"refresh_token": ana.refresh_token}
        _, ended = await nodes.race(
            nodes.send(0, None, "POST", "/auth/refresh", body),
            nodes.send(1, ana, "POST", "/auth/logout"),
        )
        return ended.is_success and await nodes.count(usable_tokens(ana)) > 0

    return once


async def refresh_against_disabling(nodes: Nodes) -> Round:
    ana, boss = await nodes.person("user"), await nodes.person(ADMIN_ROLE)

    async def once() -> bool:
        await fresh(nodes, ana)
        body = {"refresh_token": ana.refresh_token}
        _, done = await nodes.race(
            nodes.send(0, None, "POST", "/auth/refresh", body),
            nodes.send(1, boss, "PATCH", f"/users/{ana.id}", {"is_active": False}),
        )
        return done.is_success and await nodes.count(usable_tokens(ana)) > 0

    return once


def _log_in(nodes: Nodes, node: int, who: Person) -> Awaitable[httpx2.Response]:
    form = {"username": who.email, "password": PASSWORD}
    return nodes.send(node, None, "POST", "/auth/login", data=form)


async def login_against_deletion(nodes: Nodes) -> Round:
    """No session outlives the account."""
    ana, boss = await nodes.person("user"), await nodes.person(ADMIN_ROLE)

    async def once() -> bool:
        await fresh(nodes, ana)
        _, done = await nodes.race(
            _log_in(nodes, 0, ana),
            nodes.send(1, boss, "DELETE", f"/users/{ana.id}", after=some_time()),
        )
        return done.is_success and await nodes.count(live_sessions(ana)) > 0

    return once


async def login_against_a_new_password(nodes: Nodes) -> Round:
    """No session outlives the password that began it."""
    ana = await nodes.person("user")

    async def once() -> bool:
        await fresh(nodes, ana)
        link = {"token": await nodes.link(ana, Purpose.reset_password), "password": NEW_PASSWORD}
        _, done = await nodes.race(
            _log_in(nodes, 0, ana), nodes.send(1, None, "POST", "/auth/password/reset", link)
        )
        return done.is_success and await nodes.count(live_sessions(ana)) > 0

    return once


async def logins_beyond_the_limit_of_sessions(nodes: Nodes) -> Round:
    ana = await nodes.person("user")

    async def once() -> bool:
        await fresh(nodes, ana)
        now = utc_now()
        row = {"user_id": ana.id, "last_used_at": now, "expires_at": now + timedelta(days=1)}
        await nodes.change(insert(LoginSession).values([row] * (MAX_LIVE - 1)))
        await nodes.race(_log_in(nodes, 0, ana), _log_in(nodes, 1, ana))
        return await nodes.count(live_sessions(ana)) > MAX_LIVE

    return once


async def _link_used_twice(
    nodes: Nodes, *, purpose: Purpose, path: str, password: str = ""
) -> Round:
    ana = await nodes.person("user")

    async def once() -> bool:
        await fresh(nodes, ana)
        email = f"new{next(_numbers)}@example.com" if purpose is Purpose.change_email else ""
        body = {"token": await nodes.link(ana, purpose, email)}
        body |= {"password": password} if password else {}
        responses = await nodes.race(
            *(nodes.send(node, None, "POST", path, body) for node in (0, 1))
        )
        ana.email = email or ana.email
        return sorted(each.status_code for each in responses)[0] != 204 or all(
            each.is_success for each in responses
        )

    return once


async def one_reset_link_on_both_nodes(nodes: Nodes) -> Round:
    path = "/auth/password/reset"
    return await _link_used_twice(
        nodes, purpose=Purpose.reset_password, path=path, password=NEW_PASSWORD
    )


async def one_invitation_on_both_nodes(nodes: Nodes) -> Round:
    path = "/auth/password/reset"
    return await _link_used_twice(
        nodes, purpose=Purpose.invitation, path=path, password=NEW_PASSWORD
    )


async def one_verification_on_both_nodes(nodes: Nodes) -> Round:
    return await _link_used_twice(nodes, purpose=Purpose.verify_email, path="/auth/email/verify")


async def one_change_of_address_on_both_nodes(nodes: Nodes) -> Round:
    return await _link_used_twice(nodes, purpose=Purpose.change_email, path="/auth/email/verify")


async def two_reset_links_asked_for(nodes: Nodes) -> Round:
    ana = await nodes.person("user")

    async def once() -> bool:
        await fresh(nodes, ana)
        body = {"email": ana.email}
        await nodes.race(
            *(nodes.send(node, None, "POST", "/auth/password/forgot", body) for node in (0, 1))
        )
        return await nodes.count(unused(ana, Purpose.reset_password)) > 1

    return once


async def two_verifications_asked_for(nodes: Nodes) -> Round:
    ana = await nodes.person("user")

    async def once() -> bool:
        await fresh(nodes, ana)
        await nodes.change(update(User).where(User.id == ana.id).values(email_verified_at=None))
        await nodes.race(
            *(nodes.send(node, ana, "POST", "/auth/email/verify/resend") for node in (0, 1))
        )
        return await nodes.count(unused(ana, Purpose.verify_email)) > 1

    return once


async def two_changes_of_address_asked_for(nodes: Nodes) -> Round:
    ana = await nodes.person("user")

    async def once() -> bool:
        await fresh(nodes, ana)
        number = next(_numbers)
        await nodes.race(
            *(
                nodes.send(
                    node,
                    ana,
                    "PUT",
                    "/users/me/email",
                    {"new_email": f"to{number}.{node}@example.com", "current_password": PASSWORD},
                )
                for node in (0, 1)
            )
        )
        return await nodes.count(unused(ana, Purpose.change_email)) > 1

    return once


async def reset_link_asked_for_while_disabled(nodes: Nodes) -> Round:
    """Nothing that was mailed opens a disabled account once it is enabled again."""
    ana, boss = await nodes.person("user"), await nodes.person(ADMIN_ROLE)

    async def once() -> bool:
        await fresh(nodes, ana)
        _, done = await nodes.race(
            nodes.send(0, None, "POST", "/auth/password/forgot", {"email": ana.email}),
            nodes.send(1, boss, "PATCH", f"/users/{ana.id}", {"is_active": False}),
        )
        return done.is_success and await nodes.count(unused(ana, Purpose.reset_password)) > 0

    return once


async def one_address_registered_on_both_nodes(nodes: Nodes) -> Round:
    async def once() -> bool:
        email = f"reg{next(_numbers)}@example.com"
        body = {"email": email, "name": "Ana", "password": NEW_PASSWORD}
        await nodes.race(
            *(nodes.send(node, None, "POST", "/auth/register", body) for node in (0, 1))
        )
        return await nodes.count(live_users(email)) != 1

    return once


async def address_registered_while_its_owner_is_restored(nodes: Nodes) -> Round:
    boss = await nodes.person(ADMIN_ROLE)

    async def once() -> bool:
        ana = await nodes.person("user", log_in=False)
        await nodes.change(update(User).where(User.id == ana.id).values(deleted_at=utc_now()))
        body = {"email": ana.email, "name": "Ana", "password": NEW_PASSWORD}
        await nodes.race(
            nodes.send(0, None, "POST", "/auth/register", body),
            nodes.send(1, boss, "POST", f"/users/{ana.id}/restore", after=some_time()),
        )
        return await nodes.count(live_users(ana.email)) != 1

    return once


async def address_registered_while_another_changes_to_it(nodes: Nodes) -> Round:
    ana = await nodes.person("user")

    async def once() -> bool:
        email = f"wanted{next(_numbers)}@example.com"
        link = {"token": await nodes.link(ana, Purpose.change_email, email)}
        body = {"email": email, "name": "Ana", "password": NEW_PASSWORD}
        await nodes.race(
            nodes.send(0, None, "POST", "/auth/register", body),
            nodes.send(1, None, "POST", "/auth/email/verify", link, after=some_time()),
        )
        return await nodes.count(live_users(email)) != 1

    return once


async def _undone(nodes: Nodes, *, method: str, path: str, body: object = None) -> Round:
    """A user with `users:write` who undoes what is done to them."""
    _, name = await nodes.role(Permission.users_write, Permission.users_read)
    member, boss = await nodes.person(name), await nodes.person(ADMIN_ROLE)

    async def once() -> bool:
        await fresh(nodes, member)
        user = f"/users/{member.id}"
        done, _ = await nodes.race(
            nodes.send(0, boss, "DELETE", user)
            if method == "POST"
            else nodes.send(0, boss, "PATCH", user, {"is_active": False}),
            nodes.send(1, member, method, user + path, body),
        )
        live = User.id == member.id, User.is_active, User.deleted_at.is_(None)
        count = select(func.count()).select_from(User).where(*live)
        return done.is_success and await nodes.count(count) > 0

    return once


async def rights_disabled_user_enables_themselves(nodes: Nodes) -> Round:
    return await _undone(nodes, method="PATCH", path="", body={"is_active": True})


async def rights_deleted_user_restores_themselves(nodes: Nodes) -> Round:
    return await _undone(nodes, method="POST", path="/restore")


RACES: list[Race] = [
    one_refresh_token_on_both_nodes,
    logout_against_refresh,
    refresh_against_disabling,
    login_against_deletion,
    login_against_a_new_password,
    logins_beyond_the_limit_of_sessions,
    one_reset_link_on_both_nodes,
    one_invitation_on_both_nodes,
    one_verification_on_both_nodes,
    one_change_of_address_on_both_nodes,
    two_reset_links_asked_for,
    two_verifications_asked_for,
    two_changes_of_address_asked_for,
    reset_link_asked_for_while_disabled,
    one_address_registered_on_both_nodes,
    address_registered_while_its_owner_is_restored,
    address_registered_while_another_changes_to_it,
    rights_disabled_user_enables_themselves,
    rights_deleted_user_restores_themselves,
]


@pytest.mark.parametrize("race", RACES, ids=lambda race: race.__name__)
async def test_no_round_is_violated(nodes: Nodes, race: Race, whole: bool, report: Report) -> None:
    await run(nodes, race, report, rounds=50 if whole else 2)
