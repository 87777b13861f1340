"""Messages read as written in their language, and say what to do next."""

from __future__ import annotations

import re
from typing import Any

import pytest

from app.core import i18n
from tests.support.client import PASSWORD, Client
from tests.support.links import mails_to, text_of

ACCOUNT = {"email": "nadia@example.com", "name": "Nadia", "password": PASSWORD}
# No message depends on the database; one of them will do.
on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True, scope="session")
pytestmark = on_sqlite


async def messages(
    client: Client, method: str, path: str, *, locale: str = "es", **options: Any
) -> dict[str, str]:
    """Return the messages of a refused request, by field."""
    headers = {"Accept-Language": locale} | options.pop("headers", {})
    response = await client.request(method, path, headers=headers, **options)
    assert response.status_code == 422, response.text
    return {error["field"]: error["message"] for error in response.json()["errors"]}


@pytest.mark.parametrize(
    ("locale", "expected"),
    [
        ("es", "Valores admitidos: «draft», «published»."),
        ("en", "Allowed values: 'draft', 'published'."),
    ],
)
async def test_a_list_of_values_is_written_in_the_language_of_the_reader(
    client: Client, locale: str, expected: str
) -> None:
    found = await messages(client, "GET", "/posts?status=nothing", locale=locale)
    assert found == {"status": expected}
    ana = await client.user()
    body = {"title": "A", "content": "", "status": "nothing"}
    assert await messages(ana, "POST", "/posts", locale=locale, json=body) == found


async def test_no_list_of_values_is_in_english_in_spanish(client: Client) -> None:
    root = await client.admin()
    role = {"name": "readers", "permissions": ["nothing"]}
    user = {"email": "luis@example.com", "name": "Luis", "locale": "fr"}
    form = {"grant_type": "nothing", "username": "a", "password": "b"}
    found = [
        await messages(root, "GET", "/posts?sort=nothing"),
        await messages(root, "GET", "/users?sort=nothing"),
        await messages(root, "POST", "/roles", json=role),
        await messages(root, "POST", "/users", json=user),
        await messages(client, "POST", "/auth/login", data=form),
    ]
    for message in (message for each in found for message in each.values()):
        assert re.fullmatch(r"Valores admitidos: («[\w:-]*»(, )?)+\.", message), message


@pytest.mark.parametrize(
    ("locale", "one", "several"),
    [
        ("es", "Escribe al menos 1 carácter.", "Escribe al menos 2 caracteres."),
        ("en", "Enter at least 1 character.", "Enter at least 2 characters."),
    ],
)
async def test_a_number_and_its_noun_agree(
    client: Client, locale: str, one: str, several: str
) -> None:
    ana = await client.user()
    body = {"title": "", "content": ""}
    assert await messages(ana, "POST", "/posts", locale=locale, json=body) == {"title": one}
    body = ACCOUNT | {"name": "N"}
    found = await messages(client, "POST", "/auth/register", locale=locale, json=body)
    assert found == {"name": several}


async def test_an_account_that_an_admin_makes_has_the_language_of_the_request(
    client: Client,
) -> None:
    root = await client.admin()
    body = {"email": "luz@example.com", "name": "Luz"}
    response = await root.post("/users", body, headers={"Accept-Language": "es"})
    assert response.json()["locale"] == "es"
    [mail] = await mails_to(client, "luz@example.com")
    assert mail.locale == "es"
    assert "Hola, Luz:" in text_of(client, mail)
    body = {"email": "joy@example.com", "name": "Joy", "locale": "en"}
    response = await root.post("/users", body, headers={"Accept-Language": "es"})
    assert response.json()["locale"] == "en", "what the body says comes first"


@pytest.mark.parametrize(("locale", "words"), [("es", "código de país"), ("en", "country code")])
async def test_a_number_without_its_country_code_is_told_what_it_lacks(
    client: Client, locale: str, words: str
) -> None:
    body = ACCOUNT | {"phone": "600 123 456"}
    found = await messages(client, "POST", "/auth/register", locale=locale, json=body)
    assert words in found["phone"]
    assert "+34 600 123 456" in found["phone"]


@pytest.mark.parametrize("locale", i18n.LOCALES)
@pytest.mark.parametrize("time", ["2026-01-01T00:00:00+02:00", "2026-01-01T00:00:00"])
async def test_a_time_in_a_query_is_told_how_to_write_its_plus(
    client: Client, locale: str, time: str
) -> None:
    found = await messages(client, "GET", f"/posts?created_from={time}", locale=locale)
    assert "%2B" in found["created_from"]


@pytest.mark.parametrize("locale", i18n.LOCALES)
async def test_a_body_of_another_type_is_told_the_type(client: Client, locale: str) -> None:
    headers = {"Content-Type": "text/plain"}
    found = await messages(
        client, "POST", "/auth/register", locale=locale, headers=headers, content=b'{"email": "a"}'
    )
    assert "Content-Type: application/json" in found["body"]


async def test_a_body_that_is_no_json_is_named_as_a_whole(client: Client) -> None:
    headers = {"Content-Type": "application/json"}
    found = await messages(client, "POST", "/auth/register", headers=headers, content=b'{"a": }')
    assert [*found] == ["body"]


@pytest.mark.parametrize("locale", i18n.LOCALES)
async def test_a_link_that_does_not_work_comes_with_what_to_do(client: Client, locale: str) -> None:
    headers = {"Accept-Language": locale}
    refused = await client.post("/auth/email/verify", {"token": "zz"}, headers=headers)
    incomplete = {"en": "incomplete", "es": "incompleto"}[locale]
    assert incomplete in refused.json()["detail"]
    for page in ("verify-email", "change-email", "reset-password", "invitation"):
        shown = await client.http.get(f"/account/{page}", headers=headers)
        texts = i18n.find(locale, "account", page)
        assert f'data-next="{texts["next"]}"' in shown.text


async def test_the_api_docs_are_in_english_and_say_so(client: Client) -> None:
    for path in ("/docs", "/redoc"):
        shown = await client.http.get(path, headers={"Accept-Language": "es"})
        assert '<html lang="en">' in shown.text
        assert shown.headers["content-language"] == "en"
        assert "<noscript>" in shown.text
