"""Settings: what is refused, in one line that shows no value."""

from __future__ import annotations

import time
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from app import keyfiles
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
        ("SECRET_KEY", "0123456789abcdef" * 4, "SECRET_KEY must be"),
        ("SECRET_KEY", "correct-horse-battery-staple-1234567", "SECRET_KEY must be"),
        ("SECRET_KEY_FALLBACKS", "kJ8vQz2m" * 5, "SECRET_KEY_FALLBACKS must be"),
        ("SECRET_KEY", "changethis-kJ8vQz2mN5xR7tY4wB6cD9fG3", "example value"),
        ("SECRET_KEY", '{"kJ8vQz2mN5xR7tY4wB6": "cD9fG3hL1pS"}', "reads as JSON"),
        ("SECRET_KEY", "73849201756382910475638291047563829", "reads as JSON"),
        ("SECRET_KEY_FALLBACKS", "tooShort-7Xy", "SECRET_KEY_FALLBACKS must be"),
        ("SECRET_KEY_FALLBACKS", f"{'ab' * 32},x9", "SECRET_KEY_FALLBACKS must be"),
        ("SECRET_KEY_FALLBACKS", "changethis-kJ8vQz2mN5xR7tY4wB6cD9fG3", "example value"),
        ("SECRET_KEY_FALLBACKS", "73849201756382910475638291047563829", "reads as JSON"),
        ("SECRET_KEY_FALLBACKS", f"xK2-{GOOD_SECRET},{GOOD_SECRET}", "must not repeat SECRET_KEY"),
        ("FIRST_ADMIN_PASSWORD", "Admin123", "FIRST_ADMIN_PASSWORD"),
        ("FIRST_ADMIN_PASSWORD", "changethis", "FIRST_ADMIN_PASSWORD"),
        ("FIRST_ADMIN_PASSWORD", "Changeme1", "FIRST_ADMIN_PASSWORD"),
        ("FIRST_ADMIN_PASSWORD", "Password123", "FIRST_ADMIN_PASSWORD"),
        ("FIRST_ADMIN_PASSWORD", "Admin@Example.com1", "FIRST_ADMIN_PASSWORD"),
        ("FIRST_ADMIN_PASSWORD", "Correct-Horse-7", "FIRST_ADMIN_PASSWORD"),
        ("FIRST_ADMIN_PASSWORD", "CORRECT-HORSE-8!!", "FIRST_ADMIN_PASSWORD"),
        ("FIRST_ADMIN_PASSWORD", "Correct-Horse-7-Battery", "FIRST_ADMIN_PASSWORD"),
        ("FIRST_ADMIN_PASSWORD", "Look-At-This-1", "FIRST_ADMIN_PASSWORD"),
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


@pytest.mark.parametrize("password", ["Boss-20260101", "Boss@Corp.example1", "Admin-1234567890"])
def test_the_first_admins_password_is_not_their_address_or_name(
    monkeypatch: pytest.MonkeyPatch, password: str
) -> None:
    production(monkeypatch, FIRST_ADMIN_EMAIL="boss@corp.example", FIRST_ADMIN_PASSWORD=password)
    assert "FIRST_ADMIN_PASSWORD" in refusal()


def test_production_limits_attempts_unless_told_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    production(monkeypatch, RATE_LIMIT_ENABLED="false")
    line = refusal()
    assert "RATE_LIMIT_ENABLED=false" in line
    assert "RATE_LIMIT_DISABLED_ON_PURPOSE=true" in line
    monkeypatch.setenv("RATE_LIMIT_DISABLED_ON_PURPOSE", "true")
    assert not load_settings().rate_limit_enabled
    # The second setting alone switches nothing off.
    monkeypatch.setenv("RATE_LIMIT_ENABLED", "true")
    assert load_settings().rate_limit_enabled
    set_env(
        monkeypatch,
        ENVIRONMENT="development",
        RATE_LIMIT_ENABLED="false",
        RATE_LIMIT_DISABLED_ON_PURPOSE="false",
    )
    assert not load_settings().rate_limit_enabled


@pytest.mark.parametrize(
    ("environment_", "given", "served"),
    [
        ("production", None, False),
        ("production", "", False),
        ("production", "true", True),
        ("development", None, True),
        ("development", "false", False),
    ],
)
def test_docs_are_served_in_development_or_when_asked_for(
    monkeypatch: pytest.MonkeyPatch, environment_: str, given: str | None, served: bool
) -> None:
    production(monkeypatch, ENVIRONMENT=environment_)
    if given is not None:
        monkeypatch.setenv("DOCS_ENABLED", given)
    assert load_settings().docs_enabled is served


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
        "::ffff:10.0.0.0/104",
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
    ("name", "value"),
    [
        ("MAIL_FROM", "nobody"),
        ("MAIL_FROM", "Cimiento <>"),
        ("PUBLIC_URL", "javascript:alert(1)"),
        ("PUBLIC_URL", "https://"),
        ("PUBLIC_URL", "/"),
        ("PUBLIC_URL", "https://example.com/app"),
        ("PUBLIC_URL", "https://example.com?app"),
        ("PUBLIC_URL", "https://example.com#app"),
        ("REDIS_URL", "localhost:6379"),
        ("REDIS_URL", "http://localhost:6379"),
        ("REDIS_URL", "redis://"),
        ("REDIS_URL", "redis://localhost:99999"),
        ("REDIS_URL", "redis://localhost/first"),
        ("REDIS_URL", "redis://localhost?color=red"),
        ("REDIS_URL", "redis://localhost?protocol=9"),
        ("REDIS_URL", "redis://localhost?protocol=x"),
        ("SECRET_KEY", "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAABAQ"),
        ("SECRET_KEY_FALLBACKS", "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAABAQ"),
        ("SECRET_KEY_FALLBACKS", '["kJ8-vQz2_mN5xR7tY4wB6c", ""]'),
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
        ("TOKEN_ALGORITHM", "canary"),
        ("TOKEN_ALGORITHM", "none"),
        ("SECRET_KEY_FALLBACKS", '["canary'),
        ("SMTP_TLS", "canary"),
        ("SMTP_TIMEOUT_SECONDS", "60"),
        ("PASSWORD_POLICY", "canary"),
        ("TRASH_DAYS", "-1"),
        ("AUDIT_DAYS", "-1"),
        ("OUTBOX_DAYS", "-1"),
        ("POSTS_PER_MINUTE", "-1"),
        ("POSTS_PER_MINUTE", "many"),
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


def test_production_with_es256_starts_with_a_key_pair_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A54: a pair that came by itself would be another one on each machine."""
    production(monkeypatch, TOKEN_ALGORITHM="ES256", DATA_DIR="state")
    assert "state/keys: scripts/rotate-key makes one (SECRET_KEY may stay" in refusal()
    assert not Path("state").exists()
    keyfiles.rotate_pair(Path("state"), keep=timedelta(days=1))
    assert len(load_settings().key_pairs) == 1


def test_a_line_break_in_a_path_does_not_break_the_line(monkeypatch: pytest.MonkeyPatch) -> None:
    production(monkeypatch, TOKEN_ALGORITHM="ES256", DATA_DIR="a\nb\r\n\u2028c")
    assert "ES256 needs a key pair in a b c/keys" in refusal()


@pytest.mark.parametrize(
    "content", [b"HOST=\xff\xfe\n", "HOST=ñ".encode("latin-1"), b"\xff\xfeH\0"]
)
def test_a_dotenv_file_in_another_encoding_is_refused(
    monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    production(monkeypatch)
    Path(".env").write_bytes(content)
    assert refusal() == "cimiento: refusing to start: .env is not UTF-8"


PEM = "-----BEGIN PRIVATE KEY-----\n%s\n-----END PRIVATE KEY-----\n"


def unusable_keys() -> dict[str, bytes]:
    p384 = ec.generate_private_key(ec.SECP384R1())
    rsa_ = rsa.generate_private_key(65_537, 2048)
    p256 = ec.generate_private_key(ec.SECP256R1())
    plain, pem, pkcs8 = NoEncryption(), Encoding.PEM, PrivateFormat.PKCS8
    spki = PublicFormat.SubjectPublicKeyInfo
    return {
        "nothing": b"",
        "text": b"canary",
        "bytes": b"canary\xff\0",
        "no base64": (PEM % "canary!").encode(),
        "no key": (PEM % "Y2FuYXJ5").encode(),
        "another curve": p384.private_bytes(pem, pkcs8, plain),
        "RSA": rsa_.private_bytes(pem, pkcs8, plain),
        "the public half": p256.public_key().public_bytes(pem, spki),
        "under a password": p256.private_bytes(pem, pkcs8, BestAvailableEncryption(b"canary")),
    }


@pytest.mark.parametrize("kind", ["development", "production"])
def test_an_unusable_key_file_is_refused_by_its_path(
    monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """A54: nothing of its content is shown, and nothing put in its place."""
    production(monkeypatch, TOKEN_ALGORITHM="ES256", ENVIRONMENT=kind)
    path = Path("data/keys/3.pem")
    path.parent.mkdir(parents=True)
    for content in unusable_keys().values():
        path.write_bytes(content)
        line = refusal()
        assert f"{path} is not a " in line
        assert "canary" not in line
        assert [*path.parent.iterdir()] == [path]
    path.unlink()
    path.mkdir()
    assert str(path) in refusal(), "one that cannot be read at all"


def test_an_empty_secret_file_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("data").mkdir()
    Path("data/secret.key").write_text(" \n")
    assert "SECRET_KEY must not be empty" in refusal()
    monkeypatch.setenv("SECRET_KEY", GOOD_SECRET)
    assert not load_settings().keeps_secret


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
