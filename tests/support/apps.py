"""Apps with other settings, on the database of the app that the fixtures make."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
from fastapi import FastAPI

from app.core.security import Passwords
from app.main import create_app
from tests.conftest import CHEAP, make_settings
from tests.support.client import Client
from tests.support.openapi import Contract


@asynccontextmanager
async def client_of(
    app: FastAPI, database_url: str, data_dir: Path, **overrides: object
) -> AsyncIterator[Client]:
    """A client of an app with these settings. `app` is asked for as it empties the database."""
    assert app.state.settings.database_url == database_url
    other = create_app(
        make_settings(database_url, data_dir, **overrides), passwords=Passwords(CHEAP)
    )
    transport = httpx2.ASGITransport(app=other)
    async with httpx2.AsyncClient(transport=transport, base_url="http://testserver") as http:
        yield Client(http, other, Contract(other.openapi()))
    await other.state.database.dispose()
