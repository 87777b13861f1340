"""Settings of hosts, origins and domains: normalized as requests have them, or refused."""

from __future__ import annotations

from pathlib import Path

import httpx2
import pytest
from sqlalchemy import select

from app.config import load_settings
from app.core.addresses import server_url, unmapped
from app.models.outbox import Mail
from app.server import serving
from app.tasks.mail import compose
from tests.conftest import make_settings
from tests.support.apps import app_of, client_of
from tests.support.client import PASSWORD, Client
from tests.support.commands import SetEnv, admin_of, invoke, printed_password
from tests.support.settings import refusal
from tests.support.settings import set_env as set_environment


@pytest.mark.parametrize(
    ("name", "given", "kept"),
    [
        ("TRUSTED_HOSTS", "API.example.com", ["api.example.com"]),
        ("TRUSTED_HOSTS", " *.Example.COM , *", ["*.example.com", "*"]),
        ("TRUSTED_HOSTS", "[::1]", ["[::1]"]),
        ("TRUSTED_HOSTS", "[::1],127.0.0.1", ["[::1]", "127.0.0.1"]),
        ("TRUSTED_HOSTS", '["[::1]", "A.example"]', ["[::1]", "a.example"]),
        ("TRUSTED_HOSTS", "::1, 2001:DB8:0:0::1", ["[::1]", "[2001:db8::1]"]),
        ("TRUSTED_HOSTS", "api.example.com., api_1", ["api.example.com", "api_1"]),
        ("CORS_ORIGINS", "HTTPS://App.Example.com:443", ["https://app.example.com"]),
        (
            "CORS_ORIGINS",
            "http://localhost:80,http://x:08080",
            ["http://localhost", "http://x:8080"],
        ),
        ("CORS_ORIGINS", "https://localhost:80", ["https://localhost:80"]),
        (
            "CORS_ORIGINS",
            "http://[0:0::1]:3000, https://a.example.",
            ["http://[::1]:3000", "https://a.example."],
        ),
        ("TRUSTED_PROXIES", "::ffff:10.0.0.0/104,10.0.0.5/8", ["10.0.0.0/8", "10.0.0.0/8"]),
        ("TRUSTED_PROXIES", "::FFFF:127.0.0.1, fe80::1", ["127.0.0.1", "fe80::1"]),
        ("SPECIAL_USE_DOMAINS", "Company.local, @intranet", ["company.local", "intranet"]),
    ],
)
@pytest.mark.usefixtures("no_settings")
def test_settings_are_written_as_requests_have_them(
    monkeypatch: pytest.MonkeyPatch, name: str, given: str, kept: list[str]
) -> None:
    set_environment(monkeypatch, **{name: given})
    assert getattr(load_settings(), name.lower()) == kept


@pytest.mark.parametrize(
    ("name", "given"),
    [
        *(
            ("TRUSTED_HOSTS", each)
            for each in (
                *(
                    "https://api.example.com",
                    "api.example.com:8000",
                    "[::1]:8000",
                    "api.*",
                    "*x.com",
                ),
                *(
                    "a..b",
                    "-a.example",
                    "bücher.example",
                    "127.1",
                    "256.1.1.1",
                    "a b",
                    "*.",
                    "/",
                ),
            )
        ),
        *(
            ("CORS_ORIGINS", each)
            for each in (
                *(
                    "https://a.example/",
                    "https://a.example:0",
                    "https://a.example:65536",
                    "https://",
                ),
                *("https://a.example:", "https://127.1", "https://[::g]", "https://*.example"),
                *("https://-a", "ftp://a.example", "https://user@a.example"),
            )
        ),
        *(
            ("SPECIAL_USE_DOMAINS", each)
            for each in ("a@b.local", "*.local", "a_b", "::1", "10", ".x")
        ),
    ],
)
@pytest.mark.usefixtures("no_settings")
def test_what_would_never_match_is_refused(
    monkeypatch: pytest.MonkeyPatch, name: str, given: str
) -> None:
    set_environment(monkeypatch, **{name: given})
    assert f"{name} must list" in refusal()


@pytest.mark.parametrize(
    ("host", "kept", "url"),
    [
        ("::", "::", "http://127.0.0.1:9001"),
        ("[::]", "::", "http://127.0.0.1:9001"),
        ("0:0:0:0:0:0:0:0", "0:0:0:0:0:0:0:0", "http://127.0.0.1:9001"),
        ("::ffff:127.0.0.1", "127.0.0.1", "http://127.0.0.1:9001"),
        ("[2001:db8::1]", "2001:db8::1", "http://[2001:db8::1]:9001"),
    ],
)
@pytest.mark.usefixtures("no_settings")
def test_links_lead_to_where_the_server_listens(
    monkeypatch: pytest.MonkeyPatch, host: str, kept: str, url: str
) -> None:
    set_environment(monkeypatch, HOST=host, PORT="9001")
    settings = load_settings()
    assert (settings.host, settings.own_url, settings.public_url) == (kept, url, url)


def test_the_url_of_what_is_bound_names_it() -> None:
    assert server_url("::", 1, as_bound=True) == "http://[::]:1"


@pytest.mark.parametrize("text", ["::ffff:x", "::ffff:1:2:3", "10.0.0.1", ""])
def test_only_what_is_mapped_is_unmapped(text: str) -> None:
    assert unmapped(text) == text


async def test_hosts_are_recognised_in_the_form_of_requests(tmp_path: Path) -> None:
    hosts = ["API.example.com", "::1", "*.Example.org"]
    settings = make_settings("sqlite:///never-opened.db", tmp_path, trusted_hosts=hosts)
    async with app_of(settings) as app:
        transport = httpx2.ASGITransport(app=app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://x") as http:
            for host, status in {
                "api.example.com": 200,
                "Api.Example.COM:8000": 200,
                "[::1]": 200,
                "[::1]:8000": 200,
                "www.example.org": 200,
                "example.net": 400,
            }.items():
                found = await http.get("/health", headers={"Host": host})
                assert found.status_code == status, host


async def test_origins_are_recognised_in_the_form_of_browsers(tmp_path: Path) -> None:
    origins = ["HTTPS://App.Example.com:443"]
    settings = make_settings("sqlite:///never-opened.db", tmp_path, cors_origins=origins)
    async with app_of(settings) as app:
        transport = httpx2.ASGITransport(app=app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://x") as http:
            found = await http.get("/health", headers={"Origin": "https://app.example.com"})
    assert found.headers["access-control-allow-origin"] == "https://app.example.com"


# --- Addresses of people -----------------------------------------------------------------------

DOMAINS = ["Company.local", "intranet"]
OURS = ["ana@company.local", "Ana@Sales.COMPANY.local", "ana@intranet"]
NOBODYS = ["ana@other.local", "ana@local", "ana@company.test", "ana@x", "ana@company.localhost"]


@pytest.mark.parametrize("address", OURS)
async def test_a_company_says_which_addresses_are_its_own(
    client: Client, tmp_path: Path, address: str
) -> None:
    refused = await client.post(
        "/auth/register", {"email": address, "name": "Ana", "password": PASSWORD}
    )
    assert refused.status_code == 422, "not by itself"
    async with client_of(client, tmp_path, special_use_domains=DOMAINS) as company:
        ana = await company.user(email=address)
        name, _, domain = address.partition("@")
        assert (await ana.get("/users/me")).json()["email"] == f"{name}@{domain.lower()}"
        asked = await company.post("/auth/password/forgot", {"email": address})
        assert asked.status_code == 202
        for mail in await mails_of(company):
            message = compose(mail, company.app.state.settings)
            assert message["To"].addresses[0].addr_spec == f"{name}@{domain.lower()}"


async def mails_of(client: Client) -> list[Mail]:
    async with client.database.begin(readonly=True) as session:
        found = [*await session.scalars(select(Mail))]
    assert found
    return found


async def test_other_names_that_are_nobodys_stay_refused(client: Client, tmp_path: Path) -> None:
    async with client_of(client, tmp_path, special_use_domains=DOMAINS) as company:
        for address in NOBODYS:
            body = {"email": address, "name": "Ana", "password": PASSWORD}
            answer = await company.post("/auth/register", body)
            assert answer.status_code == 422, address
        assert (await company.register(email="ana@example.com"))["email"] == "ana@example.com"
    # Of the app that has the setting alone.
    assert (await client.post("/auth/register", body | {"email": OURS[0]})).status_code == 422


@pytest.mark.usefixtures("same_database")
async def test_admins_may_have_such_addresses(
    client: Client, tmp_path: Path, set_env: SetEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "serve", lambda *_, **__: None)
    options = ("--email", "boss@company.local", "--name", "Boss", "--password", PASSWORD)
    refused = await invoke("create-admin", *options)
    assert (refused.exit_code, "--email" in refused.stderr) == (2, True)
    set_env(special_use_domains="company.local", first_admin_email="admin@company.local", port=0)
    first = await invoke("run")
    assert first.exit_code == 0, first.output
    assert "First admin:  admin@company.local" in first.stderr
    created = await invoke("create-admin", *options)
    assert created.exit_code == 0, created.output
    async with client_of(client, tmp_path, special_use_domains=DOMAINS) as company:
        await admin_of(company, "admin@company.local", printed_password(first.stderr))
        await admin_of(company, "boss@company.local", PASSWORD)
