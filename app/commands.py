"""What the commands share: a database of the settings, for as long as one runs."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

from sqlalchemy.ext.asyncio import AsyncSession

from app.config import read_settings
from app.database import Database, connect, is_transient

T = TypeVar("T")
_TRIES = 5


def begin() -> None:
    """Cimiento's commands."""
    # Databases, mails and keys are made by many hands, libraries' among them: for their owner.
    os.umask(0o077)


def on_database(work: Callable[[Database], Awaitable[T]]) -> T:
    """Run some work on the database of the settings, and close it afterwards."""

    async def opened() -> T:
        # Without the key pairs, which may be yet to be made: nothing is signed here.
        database = connect(read_settings())
        try:
            return await work(database)
        finally:
            await database.dispose()

    return asyncio.run(opened())


async def committed(database: Database, work: Callable[[AsyncSession], Awaitable[T]]) -> T:
    """Run some work in a transaction, and again when the database asks for it: requests have a
    middleware that does so (`core/recovery.py`)."""
    for attempt in range(_TRIES - 1):
        try:
            async with database.begin() as session:
                return await work(session)
        except Exception as error:
            if not is_transient(error):
                raise
        await asyncio.sleep(random.uniform(0.05, 0.1) * 2**attempt)  # noqa: S311 no secret
    async with database.begin() as session:
        return await work(session)
