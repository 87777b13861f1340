"""Send many requests at once to an app with long timeouts."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
import pytest
from fastapi import FastAPI
from sqlalchemy import Select

from app.core.security import Passwords
from app.db import engine as app_database
from app.db.engine import Database
from app.main import close_app, create_app
from tests.conftest import CHEAP, make_settings

PATIENCE_SECONDS = 30


@asynccontextmanager
async def patient_app(database_url: str, data_dir: Path) -> AsyncIterator[FastAPI]:
    """Make an app whose timeouts many requests on a slow machine do not exceed."""
    settings = make_settings(database_url, data_dir, request_timeout_seconds=2 * PATIENCE_SECONDS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(app_database, "POOL_TIMEOUT_SECONDS", PATIENCE_SECONDS)
        app = create_app(settings, passwords=Passwords(CHEAP))
    try:
        yield app
    finally:
        await close_app(app)


async def at_once(requests: Iterable[Awaitable[httpx2.Response]]) -> list[httpx2.Response]:
    return list(await asyncio.gather(*requests))


def statuses(responses: Iterable[httpx2.Response]) -> Counter[int]:
    return Counter(response.status_code for response in responses)


async def count(database: Database, statement: Select[int]) -> int:
    """Return the number that a counting statement finds."""
    async with database.begin(readonly=True) as session:
        return (await session.execute(statement)).scalar_one()
