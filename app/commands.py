"""What the commands share: a database of the settings, for as long as one runs."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import TypeVar

from app.config import read_settings
from app.database import Database, connect

T = TypeVar("T")


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
