"""Apps with other settings, on the database of the app that the fixtures make."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
from fastapi import FastAPI

from app.config import Settings
from app.core.security import Passwords
from app.main import close_app, create_app
from tests.conftest import CHEAP, make_settings
from tests.support.client import Client


@asynccontextmanager
async def app_of(settings: Settings) -> AsyncIterator[FastAPI]:
    """An app whose lifespan nobody runs, with cheap password hashes; closed after the block."""
    app = create_app(settings, passwords=Passwords(CHEAP))
    try:
        yield app
    finally:
        await close_app(app)


@asynccontextmanager
async def client_of(like: Client, data_dir: Path, **overrides: object) -> AsyncIterator[Client]:
    """A client of an app with these settings; its database, and the contract, are those of
    the client `like`."""
    settings = make_settings(like.app.state.settings.database_url, data_dir, **overrides)
    async with app_of(settings) as other:
        transport = httpx2.ASGITransport(app=other)
        async with httpx2.AsyncClient(transport=transport, base_url="http://testserver") as http:
            yield Client(http, other, like.contract)
