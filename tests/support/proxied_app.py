"""An app on a socket whose database is behind a proxy, and the faults that can be caused."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import httpx2
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from app.db.engine import Database
from tests.support.client import PASSWORD, Client, Person
from tests.support.proxy import Proxy

_numbers = itertools.count(1)
_LOCK = {
    "sqlite": "BEGIN IMMEDIATE",
    "mysql": "SELECT id FROM users WHERE id = {} FOR UPDATE",
    "postgresql": "SELECT id FROM users WHERE id = {} FOR UPDATE",
}
_CONNECTIONS = {
    "mysql": "SELECT id FROM information_schema.processlist"
    " WHERE db = DATABASE() AND id <> CONNECTION_ID()",
    "postgresql": "SELECT pid FROM pg_stat_activity"
    " WHERE datname = current_database() AND pid <> pg_backend_pid()",
}
_KILL = {"mysql": "KILL {}", "postgresql": "SELECT pg_terminate_backend({})"}
_OPEN_TRANSACTIONS = {
    "mysql": "SELECT count(*) FROM information_schema.innodb_trx t"
    " JOIN information_schema.processlist p ON p.id = t.trx_mysql_thread_id"
    " WHERE p.db = DATABASE() AND p.id <> CONNECTION_ID()",
    "postgresql": "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
    " AND pid <> pg_backend_pid() AND xact_start IS NOT NULL",
}


def new_account() -> dict[str, str]:
    """The body of a registration of a new account."""
    return {"email": f"new{next(_numbers)}@example.com", "name": "New", "password": PASSWORD}


@dataclass
class ProxiedApp:
    """The app, its database (behind a proxy, but SQLite) and a person with a post.

    `direct` is the database's URL past the proxy.
    """

    direct: str
    proxy: Proxy
    client: Client
    ana: Person
    post: str

    @property
    def database(self) -> Database:
        return self.client.database

    def requests(self) -> list[Awaitable[httpx2.Response]]:
        """Reads and writes of every kind; each needs the database and can be sent again."""
        return [
            self.client.get("/posts"),
            self.client.get("/tags"),
            self.ana.get("/users/me"),
            *self.writes(),
        ]

    def writes(self) -> list[Awaitable[httpx2.Response]]:
        """Writes of every kind."""
        return [
            self.ana.post("/posts", {"title": "New", "content": "", "tags": ["new"]}),
            *self.pooled_writes(),
        ]

    def pooled_writes(self) -> list[Awaitable[httpx2.Response]]:
        """Writes that take a connection from the pool, on SQLite too."""
        login = {"username": self.ana.email, "password": PASSWORD}
        return [
            self.client.post("/auth/register", new_account()),
            self.client.request("POST", "/auth/login", data=login),
            self.ana.patch("/users/me", {"phone": "0123456789"}),
            self.ana.patch(self.post, {"title": "Changed"}),
            self.ana.put(f"{self.post}/publication"),
        ]

    def rename(self, number: int) -> Awaitable[httpx2.Response]:
        return self.ana.patch("/users/me", {"name": f"Name {number}"})

    @asynccontextmanager
    async def locked_row(self) -> AsyncIterator[None]:
        """Another process holds the person's row; on SQLite the file, for writing."""
        async with self._past_the_proxy() as connection:
            await connection.exec_driver_sql(_LOCK[self.database.dialect].format(self.ana.id))
            yield

    async def kill_connections(self) -> int:
        """The server ends everybody else's connections; how many."""
        dialect = self.database.dialect
        async with self._past_the_proxy() as connection:
            found = (await connection.scalars(text(_CONNECTIONS[dialect]))).all()
            for number in found:
                await connection.exec_driver_sql(_KILL[dialect].format(number))
        return len(found)

    async def no_transaction_is_open(self) -> None:
        """Return when the server knows of no transaction but the question's own."""
        if self.database.dialect == "sqlite":
            async with self.locked_row():
                return
        async with asyncio.timeout(10), self._past_the_proxy() as connection:
            statement = text(_OPEN_TRANSACTIONS[self.database.dialect])
            while await connection.scalar(statement):
                # MariaDB reports the same for 0.1 s; PostgreSQL until the transaction ends.
                await connection.rollback()
                await asyncio.sleep(0.1)

    async def hang_on(self, *, whole: bool) -> asyncio.StreamWriter:
        """A client that has sent a request, or half of one, and may hang up at any time."""
        url = self.client.http.base_url
        _, writer = await asyncio.open_connection(url.host, url.port)
        body = b'{"name": "Gone"}'
        head = (
            "PATCH /api/v1/users/me HTTP/1.1\r\nHost: testserver\r\n"
            f"Authorization: Bearer {self.ana.token}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        writer.write(head.encode() + (body if whole else body[:5]))
        await writer.drain()
        return writer

    @asynccontextmanager
    async def _past_the_proxy(self) -> AsyncIterator[AsyncConnection]:
        engine = create_async_engine(self.direct)
        try:
            async with engine.connect() as connection:
                yield connection
        finally:
            await engine.dispose()
