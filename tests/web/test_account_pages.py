"""The pages that mailed links open: they require a click and use up nothing by themselves."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import urljoin

import pytest

from app.core import i18n
from app.core.passwords import Policy
from app.tasks.mail import PAGES
from tests.support.apps import client_of
from tests.support.client import PASSWORD, Client
from tests.support.links import forgotten, token_to
from tests.support.matrix import snapshot
from tests.support.overrides import override_settings

# None of this depends on the database; one of them will do.
pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True, scope="session")
SET_A_PASSWORD = {"reset-password", "invitation"}


@pytest.mark.parametrize("name", PAGES.values())
@pytest.mark.parametrize("locale", i18n.LOCALES)
async def test_each_page_speaks_the_readers_language(
    client: Client, name: str, locale: str
) -> None:
    headers = {"Accept-Language": locale}
    response = await client.http.get(f"/account/{name}", headers=headers)
    assert response.status_code == 200
    assert response.headers["content-language"] == locale
    assert response.headers["vary"] == "Accept-Language"
    assert response.headers["cache-control"] == "no-store"
    assert response.headers["referrer-policy"] == "no-referrer"
    texts = i18n.find(locale, "account", name)
    assert f'<html lang="{locale}">' in response.text
    for text in texts.values():
        assert text in response.text
    assert ('type="password"' in response.text) == (name in SET_A_PASSWORD)


@pytest.mark.parametrize("name", PAGES.values())
async def test_a_page_loads_everything_from_here(client: Client, name: str) -> None:
    """A53: no external URL, no inline script or style; no form can be sent anywhere."""
    response = await client.http.get(f"/account/{name}")
    assert not re.search(r"(https?:)?//\w", response.text)
    assert not re.search(r"<script(?![^>]* src=)|<style|\s(on\w+|style)=", response.text)
    policy = response.headers["content-security-policy"]
    assert "script-src 'self';" in policy
    assert "unsafe" not in policy
    assert "form-action 'none'" in policy
    for url in re.findall(r'<(?:link|script)[^>]* (?:href|src)="([^"]+)"', response.text):
        assert (await client.http.get(urljoin("/account/", url))).status_code == 200, url
    call = re.findall(r'data-call="([^"]+)"', response.text)
    assert call[0].removeprefix("/api/v1") in {"/auth/email/verify", "/auth/password/reset"}
    assert (await client.http.post(call[0], json={})).status_code == 422


@pytest.mark.parametrize("name", PAGES.values())
async def test_whoever_opens_a_page_uses_nothing_up(client: Client, name: str) -> None:
    """Programs that look for malware open every link of a mail, some with its fragment."""
    ana = await client.user()
    verifying, resetting = (
        await token_to(client, ana.email),
        await forgotten(client, email=ana.email),
    )
    before = await snapshot(client.database)
    for method in ("GET", "HEAD"):
        for token in (verifying, resetting):
            for path in (f"/account/{name}", f"/account/{name}?token={token}"):
                response = await client.http.request(method, path)
                assert response.status_code == 200
                assert token not in response.text
    assert (await client.http.post(f"/account/{name}")).status_code == 405
    assert await snapshot(client.database) == before
    assert (await client.post("/auth/email/verify", {"token": verifying})).status_code == 204
    body = {"token": resetting, "password": PASSWORD}
    assert (await client.post("/auth/password/reset", body)).status_code == 204


async def test_the_hint_is_that_of_the_policy(client: Client) -> None:
    for policy in Policy:
        with override_settings(client.app, password_policy=policy):
            response = await client.http.get("/account/invitation")
        assert i18n.find("en", "account", "hints", policy) in response.text


async def test_the_pages_are_there_without_the_docs_and_not_in_them(
    client: Client, tmp_path: Path
) -> None:
    async with client_of(client, tmp_path, docs_enabled=False) as bare:
        assert (await bare.http.get("/account/reset-password")).status_code == 200
        assert (await bare.http.get("/static/account.js")).status_code == 200
    assert not [path for path in client.app.openapi()["paths"] if "/account/" in path]


async def test_other_pages_are_not_found(client: Client) -> None:
    for path in ("/account", "/account/", "/account/nothing", "/account/verify_email"):
        assert (await client.http.get(path)).status_code == 404
