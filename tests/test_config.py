"""Settings: what is refused, in one line that shows no value."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from app.config import Environment, load_settings
from tests.support.process import environment, run_command
from tests.support.settings import GOOD_SECRET, refusal, set_env

pytestmark = pytest.mark.usefixtures("no_settings")


def production(monkeypatch: pytest.MonkeyPatch, **values: str) -> None:
    """The environment of a server that starts, but for the given values."""
    good = {
        "ENVIRONMENT": "production",
        "SECRET_KEY": GOOD_SECRET,
        "DATABASE_URL": "postgresql://app:hunter2@db.example.com/app",
    }
    set_env(monkeypatch, **(good | values))


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
