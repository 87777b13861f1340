"""Settings: what is refused, in one line that shows no value, and what is read how."""

from __future__ import annotations

import re
import stat
import threading
import time
from pathlib import Path

import pytest
from pydantic_settings import BaseSettings

from app.config import Environment, Settings, load_settings
from tests.conftest import make_settings
from tests.support.process import ROOT, environment, run_command

GOOD_SECRET = "kJ8-vQz2_mN5xR7tY4wB6cD9fG3hL1pS"
# Every setting of the contract that exists so far, with its default.
CONTRACT = {
    "ENVIRONMENT": "development",
    "HOST": "127.0.0.1",
    "PORT": 8000,
    "WORKERS": 1,
    "DATABASE_URL": "sqlite+aiosqlite:///data/cimiento.db",
    "SECRET_KEY": None,
    "FIRST_ADMIN_EMAIL": "admin@example.com",
    "FIRST_ADMIN_PASSWORD": None,
    "REGISTRATION_ENABLED": True,
    "PASSWORD_POLICY": "classic",
    "ACCESS_TOKEN_MINUTES": 15,
    "CORS_ORIGINS": [],
    "TRUSTED_HOSTS": None,
    "TRUSTED_PROXIES": [],
    "MAX_BODY_BYTES": 262_144,
    "SMTP_HOST": None,
    "SMTP_PORT": None,
    "SMTP_USERNAME": None,
    "SMTP_PASSWORD": None,
    "SMTP_TLS": None,
    "MAIL_FROM": None,
    "PUBLIC_URL": None,
    "TRASH_DAYS": 30,
    "LOG_LEVEL": "INFO",
    "LOG_FORMAT": "json",
    "ACCESS_LOG": True,
    "DOCS_ENABLED": True,
    "DATA_DIR": Path("data"),
}
NAMES = {name.upper() for name in Settings.model_fields}


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An empty folder, and no setting in the environment."""
    monkeypatch.chdir(tmp_path)
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)


def set_env(monkeypatch: pytest.MonkeyPatch, **values: str) -> None:
    for name, value in values.items():
        monkeypatch.setenv(name, value)


def production(monkeypatch: pytest.MonkeyPatch, **values: str) -> None:
    """The environment of a server that starts, but for the given values."""
    good = {
        "ENVIRONMENT": "production",
        "SECRET_KEY": GOOD_SECRET,
        "DATABASE_URL": "postgresql://app:hunter2@db.example.com/app",
    }
    set_env(monkeypatch, **(good | values))


def refusal() -> str:
    """The one line the settings are refused with."""
    with pytest.raises(SystemExit) as refused:
        load_settings()
    line = refused.value.code
    assert isinstance(line, str), "a text ends the process with status 1 and goes to stderr"
    assert line.startswith("cimiento: refusing to start: ")
    assert "\n" not in line
    assert len(line) < 500
    return line


# --- Refusals --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("SECRET_KEY", "", "SECRET_KEY must be"),
        ("SECRET_KEY", "tooShort-7Xy", "SECRET_KEY must be"),
        ("SECRET_KEY", "ab" * 32, "SECRET_KEY must be"),
        ("SECRET_KEY", "changethis-kJ8vQz2mN5xR7tY4wB6cD9fG3", "example value"),
        ("SECRET_KEY", '{"kJ8vQz2mN5xR7tY4wB6": "cD9fG3hL1pS"}', "reads as JSON"),
        ("SECRET_KEY", "73849201756382910475638291047563829", "reads as JSON"),
        ("FIRST_ADMIN_PASSWORD", "Admin123", "FIRST_ADMIN_PASSWORD"),
        ("FIRST_ADMIN_PASSWORD", "changethis", "FIRST_ADMIN_PASSWORD"),
        ("FIRST_ADMIN_PASSWORD", "Changeme1", "FIRST_ADMIN_PASSWORD"),
        ("FIRST_ADMIN_PASSWORD", "Password123", "FIRST_ADMIN_PASSWORD"),
        ("FIRST_ADMIN_PASSWORD", "Admin@Example.com1", "FIRST_ADMIN_PASSWORD"),
    ],
)
def test_production_refuses_weak_secrets_without_showing_them(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, reason: str
) -> None:
    """A54"""
    production(monkeypatch, **{name: value})
    line = refusal()
    assert reason in line
    assert not value or value not in line


def test_production_refuses_sqlite_with_more_than_one_worker(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A54"""
    production(monkeypatch, DATABASE_URL="sqlite+aiosqlite:///app.db", WORKERS="2")
    assert "WORKERS=1" in refusal()
    monkeypatch.setenv("WORKERS", "1")
    assert load_settings().workers == 1


@pytest.mark.parametrize("origins", ["*", '["*"]', "https://a.example, *", "null", "a.example"])
def test_any_origin_is_refused_everywhere(monkeypatch: pytest.MonkeyPatch, origins: str) -> None:
    """A50: start fails."""
    set_env(monkeypatch, CORS_ORIGINS=origins)
    assert "CORS_ORIGINS" in refusal()


@pytest.mark.parametrize("proxies", ["*", '["10.0.0.1", "*"]', "0.0.0.0/0", "10.0.0.1,::/0", "x"])
def test_any_proxy_is_refused_everywhere(monkeypatch: pytest.MonkeyPatch, proxies: str) -> None:
    """A48"""
    set_env(monkeypatch, TRUSTED_PROXIES=proxies)
    assert "TRUSTED_PROXIES" in refusal()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MAIL_FROM", "nobody"),
        ("MAIL_FROM", "Cimiento <>"),
        ("PUBLIC_URL", "javascript:alert(1)"),
        ("PUBLIC_URL", "https://"),
        ("SECRET_KEY", "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAABAQ"),
    ],
)
def test_what_could_never_work_is_refused_everywhere(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    """A54"""
    monkeypatch.setenv(name, value)
    assert name in refusal()


def test_production_sends_no_password_in_the_clear(monkeypatch: pytest.MonkeyPatch) -> None:
    production(monkeypatch, SMTP_PASSWORD="canary", SMTP_TLS="none")
    assert "SMTP_TLS" in refusal()
    monkeypatch.setenv("SMTP_TLS", "starttls")
    assert load_settings().smtp_password


@pytest.mark.parametrize(
    "url",
    [
        "mssql://app:hunter2@db.example.com/app",
        "oracle+oracledb://app:hunter2@db.example.com",
        "hunter2",
        "://hunter2",
        "postgresql+asyncpg://app:hunter2@db.example.com/app",
        "mysql://app@db.example.com:hunter2/app",
        "postgresql://app:x/hunter2@db.example.com:hunter2/app",
    ],
)
def test_an_unusable_database_url_is_refused_without_showing_it(
    monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    set_env(monkeypatch, DATABASE_URL=url)
    line = refusal()
    assert "DATABASE_URL" in line
    assert "hunter2" not in line


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ENVIRONMENT", "prod-canary"),
        ("PORT", "canary"),
        ("PORT", "65536"),
        ("PORT", "-1"),
        ("WORKERS", "0"),
        ("WORKERS", "canary"),
        ("ACCESS_TOKEN_MINUTES", "0"),
        ("ACCESS_LOG", "canary"),
        ("LOG_LEVEL", "canary"),
        ("LOG_FORMAT", "canary"),
        ("SMTP_TLS", "canary"),
        ("SMTP_TIMEOUT_SECONDS", "60"),
        ("PASSWORD_POLICY", "canary"),
        ("TRASH_DAYS", "-1"),
        ("MAX_BODY_BYTES", "1"),
        ("CORS_ORIGINS", '["https://canary.example'),
        ("CORS_ORIGINS", '[{"canary": 1}]'),
        ("REQUEST_TIMEOUT_SECONDS", "nan"),
    ],
)
def test_a_malformed_value_is_refused_by_the_name_of_its_setting(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    set_env(monkeypatch, **{name: value})
    line = refusal()
    assert name in line
    assert "canary" not in line


def test_every_reason_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    production(monkeypatch, SECRET_KEY="short", FIRST_ADMIN_PASSWORD="admin", CORS_ORIGINS="*")
    line = refusal()
    assert all(name in line for name in ("SECRET_KEY", "FIRST_ADMIN_PASSWORD", "CORS_ORIGINS"))


async def test_a_refused_start_ends_with_status_1_and_one_line_at_once(tmp_path: Path) -> None:
    """A54: exit ≠ 0 with a clear message, < 2 s of processor time."""
    env = environment(environment="production", secret_key="changethis-canary", data_dir=tmp_path)
    started = time.monotonic()
    status, out, err = await run_command("serve", cwd=tmp_path, env=env)
    assert status == 1
    assert out == ""
    assert err.count("\n") == 1
    assert "SECRET_KEY" in err
    assert "canary" not in err
    # Generous: the machine may be busy with other tests; alone it is well under 2 s.
    assert time.monotonic() - started < 10


def test_a_production_server_with_good_settings_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    production(monkeypatch, FIRST_ADMIN_PASSWORD="Tortoise-Lantern-7")
    settings = load_settings()
    assert settings.environment is Environment.production
    assert not settings.in_development


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
    url = make_settings(f"{given}://ana:p%40ss@db.example.com:99/app?x=1", tmp_path).url
    assert url.render_as_string(hide_password=False) == (
        f"{driver}://ana:p%40ss@db.example.com:99/app?x=1"
    )


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


def test_the_example_file_is_safe_to_copy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Copied as it is, it starts in development; in production no example value passes."""
    example = (ROOT / ".env.example").read_text(encoding="utf-8")
    (tmp_path / ".env").write_text(example, encoding="utf-8")
    assert load_settings().in_development
    set_env(monkeypatch, ENVIRONMENT="production")
    assert "SECRET_KEY" in refusal()
