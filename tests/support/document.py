"""The OpenAPI document by itself: no database is asked for it."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from app.main import create_app
from tests.conftest import make_settings
from tests.support.openapi import Contract


@cache
def documented() -> Contract:
    """The document of an app that never connects to anything."""
    settings = make_settings("sqlite+aiosqlite:///never-opened.db", Path("never-made"))
    return Contract(create_app(settings).openapi())
