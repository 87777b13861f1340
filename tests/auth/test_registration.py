"""Registration: accepted input, refused input, and the errors."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import func, select

from app.models.base import INCLUDE_DELETED
from app.models.outbox import Mail
from app.models.users import User
from tests.support.client import PASSWORD, Client
from tests.support.overrides import override_settings
from tests.support.people import GRANTED_TO_USERS

VALID = {"email": "nadia@example.com", "name": "Nadia Newcomer", "password": PASSWORD}


async def defects(client: Client, **changes: Any) -> list[str]:
    """`field: type` of every defect of a registration that must be refused."""
    body = {name: value for name, value in (VALID | changes).items() if value is not ...}
    response = await client.post("/auth/register", body)
    assert response.status_code == 422, (changes, response.text)
    problem = response.json()
    assert problem["code"] == "validation_error"
    assert PASSWORD not in response.text, "no input is echoed"
    return sorted(f"{error['field']}: {error['type']}" for error in problem["errors"])


async def rows(client: Client) -> tuple[int, int]:
    """How many users and mails there are, the trash included."""
    async with client.database.begin(readonly=True) as session:
        everything = {INCLUDE_DELETED: True}
        users = await session.scalar(
            select(func.count()).select_from(User), execution_options=everything
        )
        mails = await session.scalar(select(func.count()).select_from(Mail))
    return users or 0, mails or 0


async def test_an_account_is_made_as_its_owner_wrote_it(client: Client) -> None:
    body = VALID | {"phone": "+34 600-123-456", "birth_date": "1990-05-17"}
    response = await client.post("/auth/register", body, headers={"Accept-Language": "es"})
    assert response.status_code == 201
    user = response.json()
    assert response.headers["location"] == f"/api/v1/users/{user['id']}"
    assert response.headers["cache-control"] == "no-store"
    shown = {name: user[name] for name in ("email", "name", "phone", "birth_date", "locale")}
    assert shown == {
        "email": "nadia@example.com",
        "name": "Nadia Newcomer",
        "phone": "34600123456",
        "birth_date": "1990-05-17",
        "locale": "es",
    }
    assert (user["is_active"], user["email_verified"], user["deleted_at"]) == (True, False, None)
    assert [role["name"] for role in user["roles"]] == ["user"]
    nadia = await client.person(user)
    assert (await nadia.get("/users/me")).json()["permissions"] == GRANTED_TO_USERS


async def test_what_is_written_loosely_is_kept_tidily(client: Client) -> None:
    account = await client.register(
        "  Nadia  ", email=" Nadia.N@EXAMPLE.com ", phone="(600) 123 4567"
    )
    assert account["name"] == "Nadia"
    assert account["email"] == "Nadia.N@example.com"
    assert account["phone"] == "6001234567"


async def test_each_field_is_held_to_its_rules(client: Client) -> None:
    tomorrow = (datetime.now(UTC) + timedelta(days=1)).date().isoformat()
    wrong: list[tuple[str, Any, str]] = [
        ("email", ..., "missing"),
        ("email", None, "string_type"),
        ("email", 5, "string_type"),
        ("email", "", "email_invalid"),
        ("email", "nadia", "email_invalid"),
        ("email", "nadia@", "email_invalid"),
        ("email", "nadia@localhost", "email_invalid"),
        ("email", "Nadia <nadia@example.com>", "email_invalid"),
        ("email", "a@example.com, b@example.com", "email_invalid"),
        ("email", "nadia@example.com\nBcc: x@example.com", "email_invalid"),
        ("email", "x" * 300 + "@example.com", "string_too_long"),
        # Short as written, too long once it is compared without case: `ΐ` becomes three.
        ("email", "ΐ" * 30 + "@" + ".".join(["x" * 60] * 3) + ".com", "email_invalid"),
        ("email", "nadia\0@example.com", "text_unstorable"),
        ("name", ..., "missing"),
        ("name", None, "string_type"),
        ("name", "N", "string_too_short"),
        ("name", "  N  ", "string_too_short"),
        ("name", "x" * 101, "string_too_long"),
        ("name", "Na\0dia", "text_unstorable"),
        ("phone", "600 123 45", "phone_invalid"),
        ("phone", "1" * 21, "phone_invalid"),
        ("phone", "call me, perhaps", "phone_invalid"),
        ("phone", "1" * 51, "string_too_long"),
        ("phone", 600_123_4567, "string_type"),
        ("birth_date", tomorrow, "birth_date_invalid"),
        ("birth_date", "1899-12-31", "birth_date_invalid"),
        ("birth_date", "1990-02-30", "date_from_datetime_parsing"),
        ("birth_date", "1990-05-17T10:00:00Z", "date_from_datetime_inexact"),
        ("birth_date", "soon", "date_parsing"),
        ("password", ..., "missing"),
        ("password", None, "string_type"),
        ("password", "", "string_too_short"),
        ("password", "A1" + "x" * 127, "string_too_long"),
        ("password", "Correct\0Horse-7", "text_unstorable"),
        ("role", "admin", "extra_forbidden"),
        ("is_active", True, "extra_forbidden"),
        ("id", 1, "extra_forbidden"),
        ("email_verified_at", "2026-01-01T00:00:00Z", "extra_forbidden"),
    ]
    found = [(field, value, await defects(client, **{field: value})) for field, value, _ in wrong]
    assert found == [(field, value, [f"{field}: {kind}"]) for field, value, kind in wrong]
    assert await rows(client) == (0, 0)


async def test_the_bounds_themselves_are_good(client: Client) -> None:
    today = datetime.now(UTC).date().isoformat()
    for fields in (
        {"name": "Li", "phone": "1" * 10, "birth_date": today},
        {"name": "ñ" * 100, "phone": "1" * 20, "birth_date": "1900-01-01"},
        {"phone": None, "birth_date": None},
        {"email": "x" * 64 + "@example.com"},
    ):
        await client.register(**({"name": "Nadia"} | fields))


async def test_every_defect_is_told_at_once_in_the_callers_language(client: Client) -> None:
    body = {"email": "nadia", "name": "N", "password": PASSWORD, "admin": True}
    english = (await client.post("/auth/register", body)).json()
    spanish = (
        await client.post("/auth/register", body, headers={"Accept-Language": "es-MX,es;q=0.9"})
    ).json()
    for problem in (english, spanish):
        assert {error["field"] for error in problem["errors"]} == {"email", "name", "admin"}
    pairs = zip(english["errors"], spanish["errors"], strict=True)
    assert all(first["message"] != second["message"] for first, second in pairs)
    assert english["detail"] != spanish["detail"]
    assert english["code"] == spanish["code"]


async def test_an_address_belongs_to_one_live_account(client: Client) -> None:
    await client.register(email="Nadia@Example.com")
    before = await rows(client)
    wide = "\N{FULLWIDTH LATIN SMALL LETTER N}adia@example.com"
    for email in ("nadia@example.com", "NADIA@EXAMPLE.COM", " nadia@example.com ", wide):
        response = await client.post("/auth/register", VALID | {"email": email})
        assert response.status_code == 409, email
        assert response.json()["code"] == "email_taken"
    assert await rows(client) == before, "neither a user nor a mail"
    await client.register(email="nádia@example.com")
    await client.register(email="nadia+more@example.com")


async def test_the_welcome_mail_is_written_with_the_account(client: Client) -> None:
    account = await client.register("Nadia")
    async with client.database.begin(readonly=True) as session:
        mail = (await session.scalars(select(Mail))).one()
    assert (mail.kind, mail.user_id, mail.recipient) == (
        "welcome",
        account["id"],
        account["email"],
    )


async def test_registration_can_be_switched_off(client: Client) -> None:
    account = await client.register()
    before = await rows(client)
    with override_settings(client.app, registration_enabled=False):
        for body in (VALID, VALID | {"email": account["email"]}):
            response = await client.post("/auth/register", body)
            assert response.status_code == 403
            assert response.json()["code"] == "registration_disabled"
        assert await rows(client) == before
        assert await client.login(account["email"])
    assert (await client.post("/auth/register", VALID)).status_code == 201
