"""A database of its own, servers on it in processes of their own, and writers who use them."""

from __future__ import annotations

import asyncio
import os
import signal
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2

from app.db.engine import Database
from tests.support import canaries
from tests.support.process import Server, environment, serving

READY_SECONDS = 30
# Making the usual one takes as long as dozens of requests.
NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


@dataclass
class World:
    """Where servers run, on what, and with which settings; `database` looks behind them."""

    folder: Path
    env: dict[str, str]
    database: Database

    @classmethod
    def on(cls, database: Database, url: str, folder: Path, **settings: object) -> World:
        """Servers on a database, without limits and access log, with these settings besides."""
        common = {
            "data_dir": folder / "data",
            "database_url": url,
            "secret_key": canaries.SECRET,
            "port": 0,
            "rate_limit_enabled": False,
            "access_log": False,
        }
        return cls(folder, environment(**common | settings), database)

    @asynccontextmanager
    async def server(self) -> AsyncIterator[tuple[Server, float]]:
        """A server that is ready, and how many seconds its start took, without those in which
        other programs had the processor."""
        started, children = time.monotonic(), []
        async with serving(self.folder, self.env) as server:
            try:
                await ready(server)
                children = children_of(server.process.pid)
                yield server, time.monotonic() - started - kept_waiting(server.process.pid)
            finally:
                # Orphans would keep the port, and the pipes that are read to their end.
                if server.process.returncode is None:
                    await server.end(signal.SIGKILL)
                for pid in children:
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)


def children_of(pid: int) -> list[int]:
    """The processes that a process has started."""
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def kept_waiting(pid: int) -> float:
    """For how many seconds a process could have run, but others did; 0 where nobody counts."""
    try:
        return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9
    except (OSError, IndexError):
        return 0.0


async def ready(server: Server) -> None:
    """Return when /health/ready answers 200."""
    async with asyncio.timeout(READY_SECONDS), http_to(server.url) as http:
        while True:
            with suppress(httpx2.TransportError):
                if (await http.get("/health/ready")).status_code == 200:
                    return
            await asyncio.sleep(0.02)


def http_to(url: str, **options: Any) -> httpx2.AsyncClient:
    """A client of a server."""
    return httpx2.AsyncClient(base_url=url, verify=NO_TLS, **options)
