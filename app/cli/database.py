"""What the commands share: a database of the settings, for as long as one runs."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import TypeVar

from app.config import read_settings, refuse_memory
from app.db.engine import Database, connect

T = TypeVar("T")
REACH_SECONDS = 10
# A note on what goes wrong past the pooler: the other URL is not to blame.
PAST_POOLER = "on the database of DATABASE_DIRECT_URL"


def begin() -> None:
    """Cimiento's commands."""
    # Databases, mails and keys are written in many places, also by libraries: for their owner.
    os.umask(0o077)


async def _reach(database: Database) -> None:
    """Connect to a server once; raise TimeoutError if what listens there says nothing, which the
    driver of MariaDB would wait for without end."""
    if database.dialect == "sqlite":
        return
    try:
        await asyncio.wait_for(_connect_once(database), REACH_SECONDS)
    except TimeoutError:
        raise TimeoutError(f"the database says nothing for {REACH_SECONDS} s") from None


async def _connect_once(database: Database) -> None:
    await (await database.probing.connect()).close()


def on_database(work: Callable[[Database], Awaitable[T]], *, direct: bool = False) -> T:
    """Run some work on the database of the settings, and close it afterwards; `direct` past a
    pooler."""

    async def opened() -> T:
        # Without the key pairs, which may not exist yet: nothing is signed here.
        settings = read_settings()
        refuse_memory(settings)
        database = connect(settings, direct=direct)
        try:
            await _reach(database)
            return await work(database)
        except Exception as error:
            if direct and settings.database_direct_url:
                error.add_note(PAST_POOLER)
            raise
        finally:
            await database.dispose()

    return asyncio.run(opened())
