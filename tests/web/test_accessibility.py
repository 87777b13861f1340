"""Pages and emails in Chromium: axe-core finds nothing, they fit, and work by keyboard."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from app.core import i18n
from app.models.base import utc_now
from app.models.one_time_tokens import Purpose
from app.models.outbox import Mail, MailKind
from app.tasks.mail import PAGES, render
from tests.conftest import SECRET
from tests.support.client import Client
from tests.support.javascript import in_browser
from tests.support.links import forgotten
from tests.support.process import environment, serving

# What they show does not depend on the database; one of them will do.
on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True, scope="session")
pytestmark = [pytest.mark.long, on_sqlite]
WIDTHS, SCHEMES = (320, 1280), ("light", "dark")
SECONDS = 240


@dataclass
class Site:
    """A server of the app, and a client of the same database."""

    url: str
    client: Client


@pytest.fixture
async def site(client: Client, tmp_path: Path) -> AsyncIterator[Site]:
    settings = client.app.state.settings
    env = environment(
        database_url=settings.database_url, data_dir=tmp_path, secret_key=SECRET, port=0
    )
    async with serving(tmp_path, env) as server:
        yield Site(server.url, client)


def pages(url: str) -> Iterator[dict[str, str]]:
    """Yield every page of the app in every language; the API docs are in English alone."""
    account = [f"/account/{name}" for name in PAGES.values()]
    linked = [f"{path}#token" for path in account]
    errors = ["/errors", "/errors/validation_error", "/errors/precondition_failed"]
    for locale in i18n.LOCALES:
        for path in (*account, *linked, *errors):
            yield {"name": f"{path} {locale}", "lang": locale, "url": url + path}
    for path in ("/docs", "/redoc"):
        yield {"name": path, "lang": "en", "url": url + path}


def emails(client: Client) -> Iterator[dict[str, str]]:
    """Yield every email in every language."""
    settings = client.app.state.settings
    values = {
        "name": "Ana García",
        "new_email": "ana.garcia@example.org",
        "purpose": Purpose.verify_email,
        "nonce": "0" * 32,
        "key": settings.keys.newest_id,
    }
    for kind in MailKind:
        for locale in i18n.LOCALES:
            mail = Mail(
                kind=kind,
                recipient="ana@example.com",
                locale=locale,
                values=values,
                key="0" * 32,
                created_at=utc_now(),
            )
            shown = render(mail, settings).html
            yield {"name": f"{kind} {locale}", "lang": locale, "html": shown}


async def test_pages_and_emails_pass_axe_in_both_schemes_and_fit(
    site: Site, pytestconfig: pytest.Config
) -> None:
    checked = [*pages(site.url), *emails(site.client)]
    wrong = await asyncio.to_thread(
        in_browser,
        "accessibility.mjs",
        pytestconfig,
        seconds=SECONDS,
        pages=checked,
        widths=WIDTHS,
        schemes=SCHEMES,
    )
    assert wrong == []


@pytest.mark.parametrize("locale", i18n.LOCALES)
async def test_account_pages_work_by_keyboard(
    site: Site, pytestconfig: pytest.Config, locale: str
) -> None:
    ana = await site.client.user()
    seen = await asyncio.to_thread(
        in_browser,
        "keyboard.mjs",
        pytestconfig,
        seconds=SECONDS,
        url=site.url,
        lang=locale,
        token=await forgotten(site.client, email=ana.email),
        weak="password",
        strong="Tortoise-Lantern-7",
    )
    texts = i18n.find(locale, "account")
    messages = i18n.find(locale, "validation")
    steps: dict[str, dict[str, Any]] = seen["steps"]
    assert [step["wrong"] for step in steps.values()] == [[]] * len(steps)
    assert seen["order"] == ["password", "show", "button"]
    assert steps["shown"]["type"] == "text"

    weak = steps["weak"]
    assert (weak["focus"], weak["invalid"], weak["described"]) == (
        "password",
        "true",
        "hint message",
    )
    assert f"{texts['error']} {messages['password_no_uppercase']}" in weak["message"]
    typing = steps["typing"]
    assert (typing["invalid"], typing["described"]) == ("false", "hint")

    done = steps["done"]
    assert done["message"] == texts["reset-password"]["done"] == done["title"]
    assert (done["focus"], done["form"], done["hash"]) == ("message", False, "")

    used = i18n.text(locale, "errors", "invalid_one_time_token", "detail")
    for name, step, reason in (
        ("verify-email", steps["dead"], used),
        ("invitation", steps["incomplete"], texts["incomplete"]),
    ):
        assert reason in step["message"]
        assert texts[name]["next"] in step["message"]
        assert (step["focus"], step["form"]) == ("message", False)
