"""Login and logout."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import bcrypt
import pytest
from sqlalchemy import select, update

from app.core.security import HashCost, Passwords
from app.models.users import User
from tests.conftest import CHEAP
from tests.support.client import PASSWORD, Client
from tests.support.overrides import override_state

WRONG = "Wrong-Horse-7"
FULL_WIDTH = "\N{FULLWIDTH LATIN SMALL LETTER A}na.case@example.com"


class Together(Passwords):
    """Verifies nothing before so many have come: each of them has read the same old hash."""

    def __init__(self, number: int) -> None:
        super().__init__(CHEAP)
        self._missing = number
        self._all_here = asyncio.Event()

    async def verify(self, password: str, stored: str | None) -> tuple[bool, str | None]:
        self._missing -= 1
        if self._missing <= 0:
            self._all_here.set()
        await self._all_here.wait()
        return await super().verify(password, stored)


async def attempt(client: Client, email: str, password: str = PASSWORD, **form: str) -> Any:
    """A login as it is answered, whatever the answer."""
    body = {"username": email, "password": password} | form
    headers = {"X-Request-ID": "always-the-same"}
    return await client.request("POST", "/auth/login", data=body, headers=headers)


async def store_hash(client: Client, user_id: int, password_hash: str | None) -> None:
    async with client.database.begin() as session:
        changed = update(User).where(User.id == user_id).values(password_hash=password_hash)
        await session.execute(changed)


async def stored_hash(client: Client, user_id: int) -> str:
    async with client.database.begin(readonly=True) as session:
        found = await session.scalar(select(User.password_hash).where(User.id == user_id))
    assert found is not None
    return found


async def test_a_login_answers_as_stock_oauth2_clients_expect(client: Client) -> None:
    account = await client.register()
    extra = {"grant_type": "password", "scope": "", "client_id": "app", "client_secret": "s"}
    response = await attempt(client, account["email"], **extra, nonstandard="passed over")
    assert response.status_code == 200
    assert response.headers["cache-control"] == "no-store"
    body = response.json()
    assert body["token_type"] == "bearer"
    assert body["expires_in"] == 15 * 60
    me = await client.get("/users/me", headers={"Authorization": f"Bearer {body['access_token']}"})
    assert me.json()["id"] == account["id"]


async def test_a_login_is_a_form_of_the_password_grant(client: Client) -> None:
    account = await client.register()
    as_json = {"username": account["email"], "password": PASSWORD}
    assert (await client.post("/auth/login", as_json)).status_code == 422
    other_grant = await attempt(client, account["email"], grant_type="client_credentials")
    assert other_grant.status_code == 422
    assert (await client.request("POST", "/auth/login", data={})).status_code == 422


async def test_the_address_counts_without_case_and_the_password_exactly(client: Client) -> None:
    account = await client.register(email="Ana.Case@Example.com")
    for written in ("ANA.CASE@EXAMPLE.COM", " ana.case@example.com ", FULL_WIDTH):
        assert (await attempt(client, written)).status_code == 200, written
    for password in (PASSWORD.lower(), f" {PASSWORD}", f"{PASSWORD} ", PASSWORD[:-1]):
        assert (await attempt(client, account["email"], password)).status_code == 401, password


async def unwelcome(client: Client) -> dict[str, tuple[str, str]]:
    """Address and password of every login that must fail, by the reason."""
    admin = await client.admin()
    known, disabled, deleted = [await client.register() for _ in range(3)]
    await admin.patch(f"/users/{disabled['id']}", {"is_active": False})
    await admin.delete(f"/users/{deleted['id']}")
    invited = {"email": "invited@example.com", "name": "Invited"}
    assert (await admin.post("/users", invited)).status_code == 201
    return {
        "wrong password": (known["email"], WRONG),
        "empty password": (known["email"], ""),
        "oversized password": (known["email"], "A1" + "x" * 900),
        "unknown": ("nobody@example.com", PASSWORD),
        "unknown, empty password": ("nobody@example.com", ""),
        "not an address": ("nobody", PASSWORD),
        "disabled": (disabled["email"], PASSWORD),
        "deleted": (deleted["email"], PASSWORD),
        "without a password": (invited["email"], PASSWORD),
        "without a password, empty": (invited["email"], ""),
    }


async def test_failed_logins_cannot_be_told_apart(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A30: the same status, body and headers, and the same hashing work, for every reason."""
    attempts = await unwelcome(client)
    # What takes the time is the hash: the same number of them, at the same cost, each time.
    context: Any = client.app.state.passwords._context
    verify_and_update, work = context.verify_and_update, list[str]()

    def counted(password: str, hashed: str) -> Any:
        work.append(hashed.rsplit("$", 2)[0])
        return verify_and_update(password, hashed)

    monkeypatch.setattr(context, "verify_and_update", counted)
    answers = {}
    for reason, (email, password) in attempts.items():
        work.clear()
        response = await attempt(client, email, password)
        headers = tuple(sorted(response.headers.items()))
        answers[reason] = (response.status_code, response.content, headers, tuple(work))
    assert len(set(answers.values())) == 1, answers
    status, content, headers, hashed = answers["unknown"]
    assert (status, hashed) == (401, ("$argon2id$v=19$m=8,t=1,p=1",))
    assert b'"code":"invalid_credentials"' in content
    assert dict(headers)["www-authenticate"] == "Bearer"


async def test_a_bcrypt_hash_is_verified_and_upgraded(client: Client) -> None:
    """A32: hashes of an older system become argon2id at the next login."""
    account = await client.register()
    legacy = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode()
    await store_hash(client, account["id"], legacy)
    assert (await attempt(client, account["email"], WRONG)).status_code == 401
    assert await stored_hash(client, account["id"]) == legacy
    assert (await attempt(client, account["email"])).status_code == 200
    upgraded = await stored_hash(client, account["id"])
    assert upgraded.startswith("$argon2id$v=19$m=8,t=1,p=1$")
    assert (await attempt(client, account["email"])).status_code == 200
    assert (await attempt(client, account["email"], WRONG)).status_code == 401
    assert await stored_hash(client, account["id"]) == upgraded, "nothing left to upgrade"


async def test_a_weaker_argon2_hash_is_upgraded(client: Client) -> None:
    """A32: raising the cost reaches everybody who logs in."""
    account = await client.register()
    dearer = HashCost(memory_kib=CHEAP.memory_kib * 2, passes=CHEAP.passes, lanes=CHEAP.lanes)
    with override_state(client.app, passwords=Passwords(dearer)):
        assert (await attempt(client, account["email"])).status_code == 200
    assert "$m=16,t=1,p=1$" in await stored_hash(client, account["id"])


async def test_parallel_logins_may_all_upgrade_the_hash(client: Client) -> None:
    """A32: the right password logs in also while another login replaces the hash."""
    account = await client.register()
    legacy = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode()
    await store_hash(client, account["id"], legacy)
    with override_state(client.app, passwords=Together(6)):
        answers = await asyncio.gather(*(attempt(client, account["email"]) for _ in range(6)))
    assert [answer.status_code for answer in answers] == [200] * 6
    assert (await stored_hash(client, account["id"])).startswith("$argon2id$")


async def test_an_account_that_never_rests_opens_nothing(client: Client) -> None:
    """A password that changes while it is verified, each time anew, is not the right one."""
    account = await client.register()
    changes = 0

    class Restless(Passwords):
        async def verify(self, password: str, stored: str | None) -> tuple[bool, str | None]:
            nonlocal changes
            changes += 1
            await store_hash(client, account["id"], await self.hash(PASSWORD))
            return await super().verify(password, stored)

    with override_state(client.app, passwords=Restless(CHEAP)):
        assert (await attempt(client, account["email"])).status_code == 401
    assert changes == 3
    assert (await attempt(client, account["email"])).status_code == 200


async def test_a_damaged_hash_opens_nothing(client: Client) -> None:
    """A32: garbage and hostile parameters in the table are a failed login, at once."""
    account = await client.register()
    argon2 = "$argon2id$v=19${}$c2FsdHNhbHRzYWx0c2FsdA$aGFzaGhhc2hoYXNoaGFzaGhhc2hoYXNo"
    for damaged in (
        "",
        "garbage",
        "$argon2id$v=19$m=8",
        "$2b$04$tooshort",
        "x" * 255,
        PASSWORD,
        argon2.format("m=8,t=0,p=1"),
        argon2.format("m=4294967295,t=1,p=1"),
        argon2.format("m=8,t=4294967295,p=1"),
        f"$2b$31${'a' * 53}",
        None,
    ):
        await store_hash(client, account["id"], damaged)
        async with asyncio.timeout(2):
            response = await attempt(client, account["email"])
        assert response.status_code == 401, damaged


async def test_hashes_have_the_recommended_strength() -> None:
    """A32: argon2id with at least 19 MiB and two passes, and a random salt of 16 bytes."""
    passwords = Passwords()
    hashes = [await passwords.hash(PASSWORD) for _ in range(2)]
    pattern = r"\$argon2id\$v=19\$m=(\d+),t=(\d+),p=\d+\$([\w+/]{22})\$[\w+/]{43}"
    first, second = [re.fullmatch(pattern, hashed) for hashed in hashes]
    assert first
    assert second
    assert int(first[1]) >= 19_456
    assert int(first[2]) >= 2
    assert first[3] != second[3]


async def test_logout_ends_this_session_and_no_other(client: Client) -> None:
    ana = await client.user()
    elsewhere = await client.person(ana.account)
    luis = await client.user("Luis")
    assert (await ana.post("/auth/logout")).status_code == 204
    assert (await ana.get("/users/me")).status_code == 401
    assert (await ana.post("/auth/logout")).status_code == 401
    assert (await elsewhere.get("/users/me")).status_code == 200
    assert (await luis.get("/users/me")).status_code == 200
    again = await client.person(ana.account)
    assert (await again.get("/users/me")).status_code == 200


@pytest.mark.parametrize("way", ["disabled", "deleted"])
async def test_a_shut_out_users_token_is_dead_for_good(client: Client, way: str) -> None:
    """A24: refused from the next request on, also after the account came back."""
    admin, ana = await client.admin(), await client.user()
    path = f"/users/{ana.id}"
    assert (await ana.get("/users/me")).status_code == 200
    if way == "disabled":
        assert (await admin.patch(path, {"is_active": False})).status_code == 200
    else:
        assert (await admin.delete(path)).status_code == 204
    for method, route in (("GET", "/users/me"), ("GET", "/posts"), ("POST", "/posts")):
        response = await ana.request(method, route)
        assert response.status_code == 401, route
        assert response.json()["code"] == "invalid_token"
    if way == "disabled":
        assert (await admin.patch(path, {"is_active": True})).status_code == 200
    else:
        assert (await admin.post(f"{path}/restore")).status_code == 200
    assert (await ana.get("/users/me")).status_code == 401, "still dead"
    assert (await (await client.person(ana.account)).get("/users/me")).status_code == 200


async def test_roles_count_from_the_next_request_on(client: Client) -> None:
    """A25: given, taken, emptied and deleted, on one and the same token."""
    admin, ana = await client.admin(), await client.user()
    grants = {"name": "reader", "permissions": ["users:read"]}
    role_id = (await admin.post("/roles", grants)).json()["id"]
    theirs, role = f"/users/{ana.id}/roles/{role_id}", f"/roles/{role_id}"

    async def may() -> bool:
        response = await ana.get("/users")
        assert response.status_code in {200, 403}
        return bool(response.status_code == 200)

    assert not await may()
    assert (await admin.put(theirs)).status_code == 204
    assert await may()
    assert (await admin.delete(theirs)).status_code == 204
    assert not await may()
    assert (await admin.put(theirs)).status_code == 204
    assert (await admin.patch(role, {"permissions": []})).status_code == 200
    assert not await may()
    assert (await admin.patch(role, {"permissions": ["users:read"]})).status_code == 200
    assert await may()
    assert (await admin.delete(role)).status_code == 204
    assert not await may()
