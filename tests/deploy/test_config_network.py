"""Settings of origins, proxies, the public URL and the mail server: refused or taken."""

from __future__ import annotations

import pytest

from app.config import load_settings
from tests.support.settings import production, refusal, set_env

pytestmark = pytest.mark.usefixtures("no_settings")


@pytest.mark.parametrize("origins", ["*", '["*"]', "https://a.example, *", "null", "a.example"])
def test_any_origin_is_refused_everywhere(monkeypatch: pytest.MonkeyPatch, origins: str) -> None:
    """A50: start fails."""
    set_env(monkeypatch, CORS_ORIGINS=origins)
    assert "CORS_ORIGINS" in refusal()


@pytest.mark.parametrize("value", ["*", "X-Own,X Other", "X-Own: 1"])
def test_headers_for_other_origins_are_names(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    set_env(monkeypatch, CORS_HEADERS=value)
    assert "CORS_HEADERS" in refusal()


@pytest.mark.parametrize(
    "proxies",
    [
        *("*", '["10.0.0.1", "*"]', "0.0.0.0/0", "10.0.0.1,::/0", "x"),
        *("0.0.0.0/1,128.0.0.0/1", "0.0.0.0/1, 10.0.0.1, 128.0.0.0/2, 192.0.0.0/2", "128.0.0.0/0"),
        # All that strangers have, without what is reserved.
        *("0.0.0.0/1,128.0.0.0/2,192.0.0.0/3", "2000::/3", "2000::/4,3000::/4", "::/1,8000::/1"),
        *("::ffff:0:0/96", "::ffff:0.0.0.0/97,::ffff:128.0.0.0/97", "::/80", "::/8"),
        # Half in one notation, half in the other; hundreds of small ones.
        *("0.0.0.0/1,::ffff:128.0.0.0/97", ",".join(f"{number}.0.0.0/8" for number in range(256))),
    ],
)
def test_any_proxy_is_refused_everywhere(monkeypatch: pytest.MonkeyPatch, proxies: str) -> None:
    """A48"""
    set_env(monkeypatch, TRUSTED_PROXIES=proxies)
    assert "TRUSTED_PROXIES" in refusal()


@pytest.mark.parametrize(
    "proxies",
    [
        "10.0.0.0/8,172.16.0.0/12,192.168.0.0/16,127.0.0.1",
        "::1,fc00::/7,fe80::/10",
        "2606:4700::/32,2803:f800::/32,2a06:98c0::/29,173.245.48.0/20,104.16.0.0/13",
    ],
)
def test_networks_of_proxies_are_taken(monkeypatch: pytest.MonkeyPatch, proxies: str) -> None:
    production(monkeypatch, TRUSTED_PROXIES=proxies)
    assert load_settings().trusted_proxies == proxies.split(",")


@pytest.mark.parametrize(
    "url",
    [
        *("https://example.com/app", "https://example.com//", "https://example.com/?", "https:///"),
        *(
            "https://example.com?next=x",
            "https://example.com#top",
            "https://example.com?",
            "//e.com",
        ),
        *("https://user@example.com", "https://user:canary@example.com", "https://@example.com"),
        *("https://example.com:", "https://example.com:0", "https://example.com:65536"),
        *("https://example.com:http", "https://example.com:-1", "https://example.com:8e1"),
        *("https://exa mple.com", "https://example.com\n", "\thttps://example.com", "https://a\\b"),
        *(
            "https://a,b.com",
            "https://a;b",
            "https://.com",
            "https://a..b",
            "https://%65xample.com",
        ),
        *(
            "https://[::1",
            "https://::1",
            "https://[::1%eth0]",
            "https://[1.2]",
            "https://[fe80::g]",
        ),
        *("ftp://example.com", "example.com", "https:example.com", "https://exa<b>mple.com"),
    ],
)
def test_a_public_url_is_a_scheme_a_host_and_a_port(
    monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    for environment_ in ("production", "development"):
        production(monkeypatch, PUBLIC_URL=url, ENVIRONMENT=environment_)
        line = refusal()
        assert "PUBLIC_URL" in line
        assert "canary" not in line


@pytest.mark.parametrize(
    "url",
    [
        *("https://example.com", "https://api.example.com:8443", "http://127.0.0.1:8000"),
        *(
            "https://[2001:db8::1]:8443",
            "http://localhost",
            "https://bücher.example",
            "http://api_1",
        ),
    ],
)
def test_a_public_url_may_have_any_host(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    production(monkeypatch, PUBLIC_URL=url)
    assert load_settings().public_url == url


@pytest.mark.parametrize(
    ("reason", "values"),
    [
        ("SMTP_HOST must be", {"SMTP_HOST": "mail.example.com:587"}),
        ("SMTP_HOST must be", {"SMTP_HOST": "smtp://mail.example.com"}),
        ("SMTP_USERNAME needs SMTP_PASSWORD", {"SMTP_USERNAME": "ana"}),
        ("SMTP_PASSWORD needs SMTP_USERNAME", {"SMTP_PASSWORD": "canary"}),
        ("SMTP_PORT=465 needs SMTP_TLS=tls", {"SMTP_PORT": "465"}),
        ("SMTP_TLS=tls needs SMTP_PORT=465", {"SMTP_TLS": "tls", "SMTP_PORT": "25"}),
    ],
)
def test_a_mail_server_that_cannot_be_is_refused(
    monkeypatch: pytest.MonkeyPatch, reason: str, values: dict[str, str]
) -> None:
    set_env(monkeypatch, **({"SMTP_HOST": "mail.example.com"} | values))
    line = refusal()
    assert reason in line
    assert "canary" not in line


@pytest.mark.parametrize(
    "values",
    [
        {"SMTP_PORT": "465", "SMTP_TLS": "tls", "SMTP_USERNAME": "ana", "SMTP_PASSWORD": "x"},
        {"SMTP_PORT": "1025", "SMTP_TLS": "none"},
        {"SMTP_PORT": "2525", "SMTP_TLS": "tls", "SMTP_HOST": "::1"},
    ],
)
def test_a_mail_server_that_can_be_is_taken(
    monkeypatch: pytest.MonkeyPatch, values: dict[str, str]
) -> None:
    set_env(monkeypatch, **({"SMTP_HOST": "mail.example.com"} | values))
    assert load_settings().smtp_host


def test_production_sends_no_password_in_the_clear(monkeypatch: pytest.MonkeyPatch) -> None:
    production(monkeypatch, SMTP_PASSWORD="canary", SMTP_TLS="none")
    assert "SMTP_TLS" in refusal()
    monkeypatch.setenv("SMTP_TLS", "starttls")
    assert load_settings().smtp_password


@pytest.mark.parametrize("given", ["", "http://app.example.com"])
def test_production_mails_no_links_to_places_without_tls(
    monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    """A54: what is derived from HOST and PORT would lead to the reader's own machine."""
    production(monkeypatch, SMTP_HOST="mail.example.com", PUBLIC_URL=given)
    assert "PUBLIC_URL must be the https:// URL" in refusal()
    monkeypatch.setenv("PUBLIC_URL", "https://app.example.com")
    assert load_settings().public_url == "https://app.example.com"


def test_without_a_mail_server_or_in_development_any_url_will_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    production(monkeypatch, PUBLIC_URL="http://app.internal")
    assert load_settings().public_url == "http://app.internal"
    set_env(monkeypatch, SMTP_HOST="mail.example.com", ENVIRONMENT="development")
    assert load_settings().public_url == "http://app.internal"
