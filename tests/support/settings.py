"""Settings from the environment: none at all, some, and the line that refuses them."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.config import Settings, load_settings

GOOD_SECRET = "kJ8-vQz2_mN5xR7tY4wB6cD9fG3hL1pS"
NAMES = {name.upper() for name in Settings.model_fields}


def forget_settings(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """An empty folder to work in, and no setting in the environment."""
    monkeypatch.chdir(folder)
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)


def set_env(monkeypatch: pytest.MonkeyPatch, **values: str) -> None:
    """Put settings into the environment, by the names they have there."""
    for name, value in values.items():
        monkeypatch.setenv(name, value)


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


def production(monkeypatch: pytest.MonkeyPatch, **values: str) -> None:
    """The environment of a server that starts, but for the given values."""
    good = {
        "ENVIRONMENT": "production",
        "SECRET_KEY": GOOD_SECRET,
        "DATABASE_URL": "postgresql://app:hunter2@db.example.com/app",
    }
    set_env(monkeypatch, **(good | values))
