"""`.env`: variable expansion, and the lines and names that are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.config import load_settings
from tests.support.settings import refusal, set_env

pytestmark = pytest.mark.usefixtures("no_settings")


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("'pa$word'", "pa$word"),
        ("'${X}'", "${X}"),
        ("'a${X}b' # why", "a${X}b"),
        ("  '$X'", "$X"),
        ("'it''s'", None),
        (r"'it\'s ${X}'", "it's ${X}"),
        ('"pa$word"', "pa$word"),
        ('"${X}"', "ex"),
        ("${X}", "ex"),
        ("a${X}b", "aexb"),
        ("${HERE}", "above"),
        ("${NOWHERE:-else}", "else"),
        ("pa$word", "pa$word"),
        ("a#b", "a#b"),
        ("it's${X}", "it'sex"),
    ],
)
def test_single_quotes_replace_nothing(
    monkeypatch: pytest.MonkeyPatch, written: str, value: str | None
) -> None:
    monkeypatch.setenv("X", "ex")
    Path(".env").write_text(f"HERE=above\nSMTP_PASSWORD={written}\nPORT=9001\n")
    if value is None:
        assert ".env, line 2, is not NAME=value" in refusal()
        return
    settings = load_settings()
    assert settings.smtp_password
    assert (settings.smtp_password.get_secret_value(), settings.port) == (value, 9001)


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("DATABSE_URL", "DATABASE_URL"),
        ("DATABASE-URL", "DATABASE_URL"),
        ("DATABASEURL", "DATABASE_URL"),
        ("database_uri", "DATABASE_URL"),
        ("SMTP_USER", "SMTP_USERNAME"),
        ("SMTP_PASS", "SMTP_PASSWORD"),
        ("SECRETKEY", "SECRET_KEY"),
        ("TRUSTED_HOST", "TRUSTED_HOSTS"),
        ("PROT", "PORT"),
        ("WORKER", "WORKERS"),
        ("ENVIROMENT", "ENVIRONMENT"),
    ],
)
def test_a_misspelt_name_is_refused_with_the_nearest_one(name: str, nearest: str) -> None:
    Path(".env").write_text(f"{name}=1\n")
    line = refusal()
    assert f".env sets what is no setting: {name} ({nearest}?)" in line


@pytest.mark.parametrize(
    "text",
    [
        "COMPOSE_PROJECT_NAME=x",
        "MARIADB_PASSWORD=x",
        "POSTGRES_PASSWORD=x",
        "REDIS_PASSWORD=x",
        "TEST_DATABASE_URL=x",
        "DATABASE_USER=x",
        "DATABASE_PASSWORD=x\nDATABASE_NAME=x",
        "DATABASE_URL_OF_OLD=x",
        "SMTP_PASS=x\nSMTP_PASSWORD=${SMTP_PASS}",
        "OTEL_EXPORTER_OTLP_ENDPOINT=x",
        "port=9001",
        "export PORT=9001",
        "\n\n# PROT=1\n",
        "",
    ],
)
def test_names_of_others_are_left_alone(text: str) -> None:
    Path(".env").write_text(text)
    load_settings()


def test_misspelt_names_of_the_environment_are_nobodys_business(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    set_env(monkeypatch, PROT="1")
    assert load_settings().port == 8000


def test_a_file_with_a_byte_order_mark_is_read() -> None:
    Path(".env").write_bytes(b"\xef\xbb\xbfPORT=9001\r\nHOST=0.0.0.0\r\n")
    assert (load_settings().port, load_settings().host) == (9001, "0.0.0.0")


def test_a_name_without_a_value_is_none() -> None:
    Path(".env").write_text("PORT\n")
    assert load_settings().port == 8000


def test_what_cannot_be_opened_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> str:
        raise PermissionError(13, "Permission denied", ".env")

    Path(".env").touch()
    monkeypatch.setattr(Path, "read_text", refuse)
    assert refusal() == "cimiento: refusing to start: .env cannot be read: Permission denied"


def test_a_folder_in_its_place_is_told() -> None:
    Path(".env").mkdir()
    assert refusal() == "cimiento: refusing to start: .env is a folder: it has to be a file"
