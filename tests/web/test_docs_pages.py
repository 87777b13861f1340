"""The pages of the API docs: served without foreign resources, and optional."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import urljoin

import pytest

from tests.support.apps import client_of
from tests.support.client import Client

# None of this depends on the database; one of them will do.
pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True, scope="session")
# Hosts of the libraries' defaults, which their scripts would still know.
CDNS = re.compile(r"cdn\.redoc\.ly|jsdelivr|unpkg\.com|googleapis|gstatic|fastapi\.tiangolo")


@pytest.mark.parametrize("page", ["/docs", "/redoc", "/errors", "/errors/not_found"])
async def test_pages_load_everything_from_here(client: Client, page: str) -> None:
    """A53: no external URL, no inline script; what they load is served, with its type."""
    response = await client.http.get(page)
    assert response.status_code == 200
    assert not re.search(r"(https?:)?//\w", response.text)
    assert not re.search(r"<script(?![^>]* src=)|\son\w+=|javascript:", response.text)
    policy = response.headers["content-security-policy"]
    scripts = re.findall(r"script-src ([^;]*)", policy)
    assert scripts in ([], ["'self'"])
    loaded = re.findall(r'<(?:link|script)[^>]* (?:href|src)="([^"]+)"', response.text)
    assert loaded
    for url in {*loaded, *re.findall(r'spec-url="([^"]+)"', response.text)}:
        found = await client.http.get(urljoin(page, url))
        assert found.status_code == 200, url
        expected = r"text/javascript|text/css|image/svg\+xml|application/json"
        assert re.match(expected, found.headers["content-type"])
        assert not CDNS.search(found.text), url


async def test_the_document_names_no_foreign_address(client: Client) -> None:
    """A53"""
    document = await client.http.get("/openapi.json")
    assert document.json() == client.app.openapi()
    assert not re.search(r"https?://", document.text)


async def test_docs_can_be_switched_off(client: Client, tmp_path: Path) -> None:
    """A53: the pages, the document and what they load; the errors stay explained."""
    vendor = "/static/vendor/swagger-ui-bundle.js"
    paths = ["/docs", "/redoc", "/openapi.json", vendor, "/static/vendor/redoc.standalone.js"]
    async with client_of(client, tmp_path, docs_enabled=False) as bare:
        for path in paths:
            assert (await client.http.get(path)).status_code == 200
            response = await bare.http.get(path)
            assert response.status_code == 404
            assert response.json()["code"] == "not_found"
        for path in ("/errors/not_found", "/static/page.css"):
            assert (await bare.http.get(path)).status_code == 200


async def test_production_shows_no_docs_by_itself(client: Client, tmp_path: Path) -> None:
    unlimited = {"rate_limit_enabled": False, "rate_limit_disabled_on_purpose": True}
    async with client_of(client, tmp_path, environment="production", **unlimited) as bare:
        for path in ("/docs", "/redoc", "/openapi.json"):
            assert (await bare.http.get(path)).status_code == 404
        assert (await bare.http.get("/errors/not_found")).status_code == 200


@pytest.mark.parametrize("wanted", ["bytes=999999999-", "bytes=a", "bytes=0-9"])
async def test_assets_come_whole_whatever_range_is_asked_for(client: Client, wanted: str) -> None:
    whole = await client.http.get("/static/page.css")
    ranged = await client.http.get("/static/page.css", headers={"Range": wanted})
    assert (ranged.status_code, ranged.content) == (200, whole.content)
