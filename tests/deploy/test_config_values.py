"""Settings: parsing, defaults, and their documentation."""

from __future__ import annotations

import json
import re
import stat
import threading
from pathlib import Path

import pytest
from pydantic_settings import BaseSettings

from app.config import Settings, load_settings
from app.core.passwords import Policy, is_published, weaknesses
from app.main import create_app
from tests.conftest import make_settings
from tests.support.process import ROOT
from tests.support.settings import GOOD_SECRET, NAMES, refusal, set_env

pytestmark = pytest.mark.usefixtures("no_settings")
# Every setting of the contract that exists so far, with its default.
CONTRACT = {
    "ENVIRONMENT": "development",
    "HOST": "127.0.0.1",
    "PORT": 8000,
    "WORKERS": 1,
    "DATABASE_URL": "sqlite+aiosqlite:///data/cimiento.db",
    "SECRET_KEY": None,
    "SECRET_KEY_FALLBACKS": [],
    "TOKEN_ALGORITHM": "HS256",
    "FIRST_ADMIN_EMAIL": "admin@example.com",
    "FIRST_ADMIN_PASSWORD": None,
    "REGISTRATION_ENABLED": True,
    "PASSWORD_POLICY": "classic",
    "ACCESS_TOKEN_MINUTES": 15,
    "CORS_ORIGINS": [],
    "TRUSTED_HOSTS": None,
    "TRUSTED_PROXIES": [],
    "MAX_BODY_BYTES": 262_144,
    "RATE_LIMIT_ENABLED": True,
    "POSTS_PER_MINUTE": 600,
    "REDIS_URL": None,
    "SMTP_HOST": None,
    "SMTP_PORT": None,
    "SMTP_USERNAME": None,
    "SMTP_PASSWORD": None,
    "SMTP_TLS": None,
    "MAIL_FROM": None,
    "PUBLIC_URL": None,
    "TRASH_DAYS": 30,
    "OUTBOX_DAYS": 30,
    "AUDIT_DAYS": 365,
    "LOG_LEVEL": "INFO",
    "LOG_FORMAT": "json",
    "ACCESS_LOG": True,
    "DOCS_ENABLED": True,
    "DATA_DIR": Path("data"),
}


# --- The development secret ------------------------------------------------------------------


def test_development_makes_a_secret_once_and_keeps_it_to_its_owner() -> None:
    first = load_settings().secret_key.get_secret_value()
    kept = Path("data/secret.key")
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert len(first) >= 32
    assert load_settings().secret_key.get_secret_value() == first
    assert [path.name for path in Path("data").iterdir()] == ["secret.key"]
    kept.unlink()
    assert load_settings().secret_key.get_secret_value() != first


def test_processes_that_start_together_agree_on_the_secret(tmp_path: Path) -> None:
    for attempt in range(20):
        folder, gate, found = tmp_path / str(attempt), threading.Barrier(4), list[str]()

        def start(
            folder: Path = folder, gate: threading.Barrier = gate, found: list[str] = found
        ) -> None:
            gate.wait()
            settings = Settings(_env_file=None, data_dir=folder)
            found.append(settings.secret_key.get_secret_value())

        threads = [threading.Thread(target=start) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(found) == 4
        assert len(set(found)) == 1
        assert len(found[0]) >= 32


def test_a_given_secret_is_used_and_none_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    set_env(monkeypatch, SECRET_KEY=GOOD_SECRET)
    assert load_settings().secret_key.get_secret_value() == GOOD_SECRET
    assert not Path("data").exists()


# --- What is read how ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "driver"),
    [
        ("postgres", "postgresql+psycopg"),
        ("postgresql", "postgresql+psycopg"),
        ("mysql", "mysql+aiomysql"),
        ("mariadb", "mysql+aiomysql"),
        ("mysql+aiomysql", "mysql+aiomysql"),
        ("postgresql+psycopg", "postgresql+psycopg"),
    ],
)
def test_plain_database_urls_get_the_driver_the_app_speaks_through(
    tmp_path: Path, given: str, driver: str
) -> None:
    rest = "ana:p%40ss@db.example.com:99/app?connect_timeout=9"
    url = make_settings(f"{given}://{rest}", tmp_path).url
    assert url.render_as_string(hide_password=False) == f"{driver}://{rest}"


def test_a_plain_sqlite_url_gets_its_driver_too(tmp_path: Path) -> None:
    assert str(make_settings("sqlite:///x.db", tmp_path).url) == "sqlite+aiosqlite:///x.db"


def test_without_a_database_url_sqlite_lives_in_the_data_folder(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    set_env(monkeypatch, DATA_DIR="elsewhere")
    settings = load_settings()
    assert settings.url.database == "elsewhere/cimiento.db"
    assert settings.mail_dir == Path("elsewhere/mail")


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("https://a.example", ["https://a.example"]),
        ("https://a.example, https://b.example,", ["https://a.example", "https://b.example"]),
        ('["https://a.example", "https://b.example"]', ["https://a.example", "https://b.example"]),
        (" [] ", []),
        (" , ", []),
        ("", []),
    ],
)
def test_lists_are_written_with_commas_or_as_json(
    monkeypatch: pytest.MonkeyPatch, text: str, values: list[str]
) -> None:
    set_env(monkeypatch, CORS_ORIGINS=text)
    assert load_settings().cors_origins == values


def test_a_dotenv_file_is_read_and_the_environment_wins(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / ".env").write_text("PORT=9001\nHOST=0.0.0.0\nSOMETHING_ELSE=1\nSMTP_HOST=\n")
    set_env(monkeypatch, PORT="9002")
    settings = load_settings()
    assert (settings.port, settings.host, settings.smtp_host) == (9002, "0.0.0.0", None)


def test_links_never_get_two_slashes(monkeypatch: pytest.MonkeyPatch) -> None:
    set_env(monkeypatch, PUBLIC_URL="https://app.example.com/")
    assert load_settings().public_url == "https://app.example.com"


def test_a_public_url_may_be_in_capitals(monkeypatch: pytest.MonkeyPatch) -> None:
    set_env(monkeypatch, PUBLIC_URL="HTTPS://APP.Example.com:8443/", SMTP_HOST="mail.example.com")
    assert load_settings().public_url == "https://app.example.com:8443"


def test_any_port_that_is_free_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    set_env(monkeypatch, PORT="0")
    assert load_settings().public_url == "http://127.0.0.1:0"


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:9001"),
        ("localhost", "http://localhost:9001"),
        ("0.0.0.0", "http://127.0.0.1:9001"),
        ("::", "http://127.0.0.1:9001"),
        ("::1", "http://[::1]:9001"),
        ("fe80::1%eth0", "http://[fe80::1%eth0]:9001"),
    ],
)
def test_without_a_public_url_links_lead_to_where_the_server_listens(
    monkeypatch: pytest.MonkeyPatch, host: str, url: str
) -> None:
    set_env(monkeypatch, HOST=host, PORT="9001", PUBLIC_URL="")
    assert load_settings().public_url == url


def test_printed_settings_show_no_secret(tmp_path: Path) -> None:
    """A54, A57: config printed redacted."""
    settings = make_settings(
        "postgresql://app:canary-1@db.example.com/app",
        tmp_path,
        secret_key="canary-2-kJ8vQz2mN5xR7tY4wB6cD9",
        first_admin_password="canary-3",
        smtp_password="canary-4",
    )
    printed = f"{settings!r} {settings} {settings.url} {settings.url!r}"
    assert "canary" not in printed


# --- Documentation ---------------------------------------------------------------------------


def test_the_settings_of_the_contract_exist_with_their_defaults() -> None:
    assert CONTRACT.keys() <= NAMES
    defaults = load_settings()
    for name, default in CONTRACT.items():
        if default is not None:
            assert getattr(defaults, name.lower()) == default, name


def test_every_setting_is_documented_in_the_example_file_and_no_other() -> None:
    example = (ROOT / ".env.example").read_text(encoding="utf-8")
    documented = re.findall(r"^(?:# ?)?([A-Z][A-Z0-9_]+)=", example, flags=re.MULTILINE)
    assert sorted(documented) == sorted(NAMES)
    assert issubclass(Settings, BaseSettings)


_SHOWN = re.compile(
    r"""password["']?\s*[:=]\s*["']?([^\s"'`]{8,})|login [^\s)]+ ([^\s"'`)]{8,})""", re.IGNORECASE
)


def test_no_password_of_the_documentation_passes_for_the_first_admin() -> None:
    """What is shown as a password, and the policy would take, is refused as published."""
    pages = [ROOT / name for name in (".env.example", "compose.yaml", "CHANGELOG.md")]
    pages += [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("deploy/**/*")]
    texts = [page.read_text(encoding="utf-8") for page in pages if page.is_file()]
    texts.append(json.dumps(create_app(Settings(_env_file=None)).openapi()))
    shown = {given for text in texts for match in _SHOWN.findall(text) for given in match}
    for schema in create_app(Settings(_env_file=None)).openapi()["components"]["schemas"].values():
        for name, field in schema.get("properties", {}).items():
            if "password" in name:
                shown |= {str(example) for example in field.get("examples", ())}
    passing = {each for each in shown if not weaknesses(each, Policy.classic, "x@example.com")}
    assert {"Correct-Horse-7", "Look-At-This-1", "Correct-Horse-7-Battery"} <= passing
    assert {each for each in passing if not is_published(each)} == set()


def test_the_example_file_is_safe_to_copy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Copied as it is, it starts in development; in production no example value passes."""
    example = (ROOT / ".env.example").read_text(encoding="utf-8")
    (tmp_path / ".env").write_text(example, encoding="utf-8")
    assert load_settings().in_development
    set_env(monkeypatch, ENVIRONMENT="production")
    assert "SECRET_KEY" in refusal()
