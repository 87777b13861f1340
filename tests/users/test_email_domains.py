"""Email domains that differ in `ß` and `ss` are different, and so are their accounts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text

from app.models.users import email_key
from tests.support.client import PASSWORD, Client
from tests.support.schema import alembic, connected, empty_database

SHARP, DOUBLE = "ana@stra\u00dfe.example.com", "ana@strasse.example.com"
OTHER_PASSWORD = "Another-Horse-8"


@pytest.mark.parametrize(
    ("one", "other"),
    [(SHARP, DOUBLE), ("ana@\u03b1\u03c2.com", "ana@\u03b1\u03c3.com")],
)
async def test_two_domains_are_two_accounts(client: Client, one: str, other: str) -> None:
    passwords = {one: PASSWORD, other: OTHER_PASSWORD}
    ids = {}
    for email, password in passwords.items():
        account = await client.register(email=email, password=password)
        assert account["email"] == email
        ids[email] = account["id"]
    assert len(set(ids.values())) == 2
    for email, password in passwords.items():
        token = await client.login(email, password)
        me = await client.get("/users/me", headers={"Authorization": f"Bearer {token}"})
        assert me.json()["id"] == ids[email]
        for wrong in {*passwords.values()} - {password}:
            form = {"username": email, "password": wrong}
            response = await client.request("POST", "/auth/login", data=form)
            assert response.status_code == 401


@pytest.mark.parametrize(
    "same",
    [
        "ANA@STRA\u1e9eE.example.com",
        "Ana@xn--strae-oqa.example.com",
        "\uff21na@stra\u00dfe.EXAMPLE.com",
    ],
)
async def test_one_domain_is_one_account_however_it_is_written(client: Client, same: str) -> None:
    await client.register(email=SHARP)
    assert await client.login(same)
    body = {"email": same, "name": "Ana", "password": PASSWORD}
    assert (await client.post("/auth/register", body)).status_code == 409


def test_a_key_folds_all_else() -> None:
    assert email_key(" Jos\u00c9@EXAMPLE.com") == "jos\u00e9@example.com"
    assert email_key("Wei\u00df@example.com") == email_key("weiss@example.com")
    assert email_key("no address: STRA\u00dfE") == "no address: stra\u00dfe"


@pytest.fixture
def url(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("DATA_DIR", str(tmp_path))
    with empty_database(database_url, tmp_path) as found:
        yield found


def keys(url: str) -> dict[str, str]:
    with connected(url) as connection:
        found = connection.execute(text("SELECT email, live_email FROM users"))
        return {row[0]: row[1] for row in found}


def add(url: str, email: str, key: str) -> None:
    with connected(url) as connection:
        connection.execute(
            text(
                "INSERT INTO users (email, email_key, name, locale, is_active, created_at,"
                " updated_at) VALUES (:email, :key, 'Ana', 'en', :active, :now, :now)"
            ),
            {"email": email, "key": key, "active": True, "now": "2026-01-01 00:00:00"},
        )
        connection.commit()


@pytest.mark.long
def test_the_keys_of_accounts_that_were_there_are_written_anew(url: str) -> None:
    alembic(url, "upgrade", "0008")
    old = {SHARP: DOUBLE, "ana@example.com": "ana@example.com", "wei\u00df@a.de": "weiss@a.de"}
    for email, key in old.items():
        add(url, email, key)
    alembic(url, "upgrade", "0009")
    assert keys(url) == old | {SHARP: SHARP} == {email: email_key(email) for email in old}
    alembic(url, "downgrade", "0008")
    assert keys(url) == old
    alembic(url, "upgrade", "0009")
    add(url, DOUBLE, DOUBLE)
    alembic(url, "downgrade", "0008")
    assert keys(url) == old | {SHARP: SHARP, DOUBLE: DOUBLE}, "only one can have the common key"
