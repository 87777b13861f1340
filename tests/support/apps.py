"""Apps with other settings, on the database of the app that the fixtures make."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2

from app.core.security import Passwords
from app.main import create_app
from tests.conftest import CHEAP, make_settings
from tests.support.client import Client


@asynccontextmanager
async def client_of(like: Client, data_dir: Path, **overrides: object) -> AsyncIterator[Client]:
    """A client of an app with these settings; its database, and the contract, are those of
    the client `like`."""
    settings = make_settings(like.app.state.settings.database_url, data_dir, **overrides)
    other = create_app(settings, passwords=Passwords(CHEAP))
    transport = httpx2.ASGITransport(app=other)
    try:
        async with httpx2.AsyncClient(transport=transport, base_url="http://testserver") as http:
            yield Client(http, other, like.contract)
    finally:
        await other.state.gate.close()
        await other.state.readiness.close()
        await other.state.database.dispose()
