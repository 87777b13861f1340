"""What a server reports of an app's connections: how many there are, and what they execute."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

_CONNECTIONS = {
    "mysql": "SELECT id, COALESCE(info, '') LIKE '%get_lock(%' FROM information_schema.processlist"
    " WHERE db = DATABASE() AND id <> CONNECTION_ID()",
    "postgresql": "SELECT pid, state = 'active' AND query LIKE '%sleep(%' FROM pg_stat_activity"
    " WHERE datname = current_database() AND pid <> pg_backend_pid()",
}
_TRANSACTIONS = {
    "mysql": "SELECT p.id FROM information_schema.innodb_trx t"
    " JOIN information_schema.processlist p ON p.id = t.trx_mysql_thread_id"
    " WHERE p.db = DATABASE() AND p.id <> CONNECTION_ID()",
    "postgresql": "SELECT pid FROM pg_stat_activity WHERE datname = current_database()"
    " AND pid <> pg_backend_pid() AND xact_start IS NOT NULL",
}
_KILL = {"mysql": "KILL {}", "postgresql": "SELECT pg_terminate_backend({})"}
# MariaDB's SLEEP() is no good: several at once share a mutex, over which a KILL of one of them and
# the thread that is to end wait for each other, for two seconds in one of ten times.
_TAKEN = "CONCAT(DATABASE(), ' taken')"
_SLEEP = {"mysql": f"SELECT get_lock({_TAKEN}, {{}})", "postgresql": "SELECT pg_sleep({})"}


@dataclass
class ConnectionPeaks:
    """The most that were seen at once."""

    most: int = 0
    slept: int = 0


class Server:
    """One database of a server, looked at past the app. Connections that were there before do
    not count."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._before: set[int] = set()

    async def begin(self) -> None:
        """Count what connects from now on, and take what MariaDB's statements are to wait for."""
        if self._engine.dialect.name == "mysql":
            async with self._engine.connect() as connection:
                await connection.exec_driver_sql(f"SELECT get_lock({_TAKEN}, 0)")
        self._before = {number for number, _ in await self._look()}

    def sleep(self, seconds: float) -> str:
        """A statement that takes so long."""
        return _SLEEP[self._engine.dialect.name].format(seconds)

    async def sleeping(self) -> int:
        """How many connections execute one."""
        return sum(sleeps for _, sleeps in await self._ours())

    async def transactions(self) -> int:
        """How many transactions are open. MariaDB reports the same for 0.1 s."""
        await asyncio.sleep(0.15)
        async with self._engine.connect() as connection:
            found = await connection.scalars(text(_TRANSACTIONS[self._engine.dialect.name]))
            return len({*found} - self._before)

    async def kill_sleeping(self) -> None:
        """End the connections that execute a statement that takes long."""
        found = await self._ours()
        async with self._engine.connect() as connection:
            for number in [number for number, sleeps in found if sleeps]:
                await connection.exec_driver_sql(_KILL[self._engine.dialect.name].format(number))

    @asynccontextmanager
    async def counted_connections(self) -> AsyncIterator[ConnectionPeaks]:
        """What is seen at once while the block runs."""
        peaks = ConnectionPeaks()
        looking = asyncio.create_task(self._keep_looking(peaks))
        try:
            yield peaks
        finally:
            looking.cancel()
            await asyncio.wait({looking})

    async def _keep_looking(self, peaks: ConnectionPeaks) -> None:
        while True:
            found = await self._ours()
            peaks.most = max(peaks.most, len(found))
            peaks.slept = max(peaks.slept, sum(sleeps for _, sleeps in found))
            await asyncio.sleep(0.005)

    async def _ours(self) -> list[tuple[int, bool]]:
        return [each for each in await self._look() if each[0] not in self._before]

    async def _look(self) -> list[tuple[int, bool]]:
        async with self._engine.connect() as connection:
            found = await connection.execute(text(_CONNECTIONS[self._engine.dialect.name]))
            return [(number, bool(sleeps)) for number, sleeps in found]


@asynccontextmanager
async def watched(url: str) -> AsyncIterator[Server]:
    """The server of a database's URL; what is connected to it now does not count."""
    # One connection, or those who look would count each other.
    engine = create_async_engine(url, isolation_level="AUTOCOMMIT", pool_size=1, max_overflow=0)
    try:
        server = Server(engine)
        await server.begin()
        yield server
    finally:
        await engine.dispose()
