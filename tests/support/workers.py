"""API, workers and beat as people run them: processes of their own, with a Redis between them."""

from __future__ import annotations

import signal
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, closing
from dataclasses import dataclass, field
from pathlib import Path

import httpx2

from tests.support.client import API, PASSWORD
from tests.support.faults import eventually
from tests.support.process import Server, environment, run_command, running, serving
from tests.support.redis_server import RedisServer
from tests.support.smtp import PATIENCE_SECONDS, Sink


@dataclass
class Deployment:
    """One API process, workers and beat on a database, with one Redis and one mail server."""

    folder: Path
    env: dict[str, str]
    redis: RedisServer
    sink: Sink
    registered: list[str] = field(default_factory=list)
    http: httpx2.AsyncClient = field(default_factory=httpx2.AsyncClient)
    api: Server | None = None

    async def register(self, *names: str) -> None:
        """Register people one after the other; each has to be answered 201."""
        for name in names:
            person = f"{name}@example.com"
            body = {"email": person, "name": "Ana", "password": PASSWORD}
            response = await self.http.post(f"{API}/auth/register", json=body)
            assert response.status_code == 201, response.text
            self.registered.append(person)

    async def all_arrived(self, patience: float = PATIENCE_SECONDS) -> None:
        """Wait until everybody who registered has their welcome mail."""
        await self.sink.arrived(lambda: all(map(self.sink.to, self.registered)), patience)

    def copies(self) -> Counter[str]:
        """How often each person has been sent a mail."""
        return Counter(each for mail in self.sink.deliveries for each in mail.recipients)

    def mails(self) -> dict[str, str]:
        """The state of each person's mail, as it is in the (SQLite) database."""
        with closing(sqlite3.connect(self.folder / "test.db")) as connection:
            return dict(connection.execute("SELECT recipient, state FROM outbox").fetchall())

    def end_lease(self, name: str) -> None:
        """End the claim of a dead process on the mail to a person.

        Not for all of them: a mail that was sent and is not ticked off yet would be sent again.
        """
        with closing(sqlite3.connect(self.folder / "test.db")) as connection, connection:
            connection.execute(
                "UPDATE outbox SET next_attempt_at = '2020-01-01 00:00:00' "
                "WHERE state = 'sending' AND recipient = ?",
                (f"{name}@example.com",),
            )

    @asynccontextmanager
    async def worker(self, *options: str) -> AsyncIterator[Server]:
        """A worker that is ready."""
        async with running("worker", *options, cwd=self.folder, env=self.env) as worker:
            await worker.logged("celery@")
            yield worker

    @asynccontextmanager
    async def beat(self) -> AsyncIterator[Server]:
        """A beat that has a handler for SIGTERM: it logs nothing of its own."""
        async with running("beat", cwd=self.folder, env=self.env) as beat:
            await eventually(lambda: catches(beat.process.pid, signal.SIGTERM), seconds=30)
            yield beat


def catches(pid: int, which: signal.Signals) -> bool:
    """Whether a process has a handler for a signal."""
    status = Path(f"/proc/{pid}/status").read_text()
    mask = next(line.split()[1] for line in status.splitlines() if line.startswith("SigCgt:"))
    return bool(int(mask, 16) >> (which - 1) & 1)


@asynccontextmanager
async def running_deployment(
    folder: Path, redis: RedisServer, sink: Sink, **settings: object
) -> AsyncIterator[Deployment]:
    """An API process on a migrated database (SQLite unless said otherwise); no workers yet."""
    given = {
        "data_dir": folder / "data",
        "database_url": f"sqlite+aiosqlite:///{folder}/test.db",
        "secret_key": "tests-0123456789abcdefghijklmnopqrstuv",
        "port": 0,
        "smtp_host": "127.0.0.1",
        "smtp_port": sink.port,
        "smtp_tls": "none",
        "redis_url": redis.url,
    }
    env = environment(**(given | settings))
    status, _, complaint = await run_command("migrate", cwd=folder, env=env)
    assert status == 0, complaint
    async with AsyncExitStack() as stack:
        api = await stack.enter_async_context(serving(folder, env))
        http = await stack.enter_async_context(httpx2.AsyncClient(base_url=api.url, timeout=30))
        yield Deployment(folder, env, redis, sink, http=http, api=api)
