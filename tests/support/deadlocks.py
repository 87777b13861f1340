"""Real deadlocks: a rival on a connection of its own crosses the locks of a request."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine
from sqlalchemy.util import await_only

from app.db.engine import Database

# Foreign keys are not checked, so that the rival locks nothing but what it writes.
_UNCHECKED = {
    "mysql": "SET SESSION foreign_key_checks = 0",
    "postgresql": "SET session_replication_role = replica; SET deadlock_timeout = '30s';"
    "SET application_name = 'rival'",
}
# MariaDB ends the transaction that has written less.
_WEIGHT = "INSERT INTO user_roles (user_id, role_id) VALUES (:user_id, :role_id)"
_WEIGHT_ROWS = [{"user_id": 2**40 + number, "role_id": 2**40} for number in range(50)]


class Rival:
    """Inserts a row that the request is about to insert, and then asks for a row the request has
    locked by then: one of the two has to give way, which is the request.

    `deadlocks` counts how often it did.
    """

    def __init__(self, database: Database, connection: AsyncConnection) -> None:
        self._database = database
        self._connection = connection
        self.deadlocks = 0

    @asynccontextmanager
    async def crossing(self, table: str, row: dict[str, Any], held: str) -> AsyncIterator[None]:
        """Deadlock with the first request that inserts into the table inside the block; `held`
        selects, for update, what the request has locked by then."""
        names = ", ".join(row)
        values = ", ".join(f":{name}" for name in row)
        await self._connection.execute(text(_WEIGHT), _WEIGHT_ROWS)
        # At the last moment: the request reads, with locks, what it is about to insert.
        insertion = text(f"INSERT INTO {table} ({names}) VALUES ({values})")
        arrived = asyncio.Event()

        async def be_first() -> None:
            await self._connection.execute(insertion, row)
            arrived.set()
            await self._blocked()

        def note(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
            if statement.startswith(f"INSERT INTO {table}") and not arrived.is_set():
                await_only(be_first())

        engine = self._database.engine.sync_engine
        event.listen(engine, "before_cursor_execute", note)
        crossing = asyncio.create_task(self._cross(arrived, held))
        try:
            yield
            await asyncio.wait_for(crossing, 10)
        finally:
            crossing.cancel()
            event.remove(engine, "before_cursor_execute", note)

    async def _blocked(self) -> None:
        """Return when the rival waits for the request. PostgreSQL looks for a deadlock once, when
        a transaction has waited for a while; MariaDB does at every wait."""
        if self._database.dialect != "postgresql":
            return
        waiting = text(
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE wait_event_type = 'Lock' AND application_name = 'rival'"
            " AND datname = current_database()"
        )
        async with asyncio.timeout(10), self._connection.engine.connect() as looking:
            while not await looking.scalar(waiting):
                await looking.rollback()
                await asyncio.sleep(0.01)

    async def _cross(self, arrived: asyncio.Event, held: str) -> None:
        await arrived.wait()
        await self._connection.execute(text(f"{held} FOR UPDATE"))
        await self._connection.rollback()


@asynccontextmanager
async def rival_of(database: Database) -> AsyncIterator[Rival]:
    """A rival of the requests to an app with this database, which has to be a server's."""

    def hurry(connection: Any) -> None:
        # PostgreSQL looks for a deadlock when a transaction has waited this long.
        connection.exec_driver_sql("SET LOCAL deadlock_timeout = '10ms'")

    engine = create_async_engine(database.engine.url)
    sync_engine = database.engine.sync_engine
    if database.dialect == "postgresql":
        event.listen(sync_engine, "begin", hurry)
    try:
        async with engine.connect() as connection:
            for statement in _UNCHECKED[database.dialect].split(";"):
                await connection.execute(text(statement))
            await connection.commit()
            rival = Rival(database, connection)

            def count(context: Any) -> None:
                rival.deadlocks += type(context.original_exception).__name__ == "DeadlockDetected"
                rival.deadlocks += 1213 in context.original_exception.args

            event.listen(sync_engine, "handle_error", count)
            try:
                yield rival
            finally:
                event.remove(sync_engine, "handle_error", count)
    finally:
        if database.dialect == "postgresql":
            event.remove(sync_engine, "begin", hurry)
        await engine.dispose()
