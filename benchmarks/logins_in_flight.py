"""Hundreds of logins in flight: what they, a stranger and the other routes get of the server.

    python -m benchmarks.logins_in_flight --in-flight 540 --networks 6

The server is the app as people run it, with its limits of tries in force; the networks are those
that a trusted proxy names. The logins come from a process of its own, so that its work does not
slow down the requests that are watched.
"""

from __future__ import annotations

import asyncio
import itertools
import multiprocessing
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Annotated
from urllib.parse import urlencode, urlsplit

import typer
from sqlalchemy import Engine

from benchmarks.databases import Filled, filled
from benchmarks.dataset import PASSWORD, DataSet
from benchmarks.machine import Machine, peak_memory_mib, serving_python
from benchmarks.servers import Server, serving_app

_OK = 200
_WATCHED = ("/health", "/api/v1/posts/7", "/api/v1/users/me")
_PATIENCE_SECONDS = 10
_FIRST_STRANGER = 900


@dataclass
class Seen:
    """How long answers took, by status, in milliseconds; status 0 is no answer."""

    took: dict[int, list[float]] = field(default_factory=dict)

    def add(self, status: int, milliseconds: float) -> None:
        self.took.setdefault(status, []).append(milliseconds)

    def __str__(self) -> str:
        parts = []
        for status, took in sorted(self.took.items()):
            took.sort()
            p50, p99 = (took[int(len(took) * share)] for share in (0.5, 0.99))
            parts.append(
                f"{status}: {len(took)} (p50 {p50:.0f}, p99 {p99:.0f}, max {took[-1]:.0f} ms)"
            )
        return "; ".join(parts)


class Line:
    """One connection, kept open; opened again after an error."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._place = (parts.hostname or "", parts.port or 0)
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def send(self, request: bytes, seen: Seen) -> int:
        """Send it, note how long the answer took, and return its status."""
        started = time.perf_counter()
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                status = await self._ask(request)
        except (OSError, EOFError, TimeoutError):
            self.close()
            status = 0
        seen.add(status, (time.perf_counter() - started) * 1_000)
        return status

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None

    async def _ask(self, request: bytes) -> int:
        if self._streams is None:
            self._streams = await asyncio.open_connection(*self._place)
        reader, writer = self._streams
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
        await reader.readexactly(int(length or b"0"))
        return int(head[9:12])


def login(data: DataSet, user_id: int, network: str) -> bytes:
    """A right login, as it goes over the wire."""
    body = urlencode({"username": data.email(user_id), "password": PASSWORD})
    head = (
        f"POST /api/v1/auth/login HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-For: {network}\r\n"
        f"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return (head + body).encode()


def keep_in_flight(pipe: Connection, url: str, requests: list[bytes], pause: float) -> None:
    """Keep one of each of the requests in flight until the other end of the pipe ends it."""

    async def one(request: bytes, seen: Seen) -> None:
        line = Line(url)
        while True:
            status = await line.send(request, seen)
            if status != _OK and pause:
                await asyncio.sleep(pause)

    async def all_of_them() -> None:
        seen = Seen()
        tasks = [asyncio.create_task(one(request, seen)) for request in requests]
        await asyncio.to_thread(pipe.recv)
        pipe.send(seen)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(all_of_them())


async def _watch(url: str, data: DataSet, seconds: float) -> dict[str, Seen]:
    """Log a stranger in, ten times a second at most, and ask other routes meanwhile."""
    found = {name: Seen() for name in ("stranger", *_WATCHED)}
    token = data.tokens()[1]
    end = time.monotonic() + seconds

    async def strangers() -> None:
        line = Line(url)
        for number in itertools.count():
            network = f"198.51.100.{number % 250 + 1}"
            user_id = _FIRST_STRANGER + number % 100
            if time.monotonic() > end:
                return
            await line.send(login(data, user_id, network), found["stranger"])
            await asyncio.sleep(0.1)

    async def others(path: str) -> None:
        line = Line(url)
        request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\r\n"
        while time.monotonic() < end:
            await line.send(request.encode(), found[path])
            await asyncio.sleep(0.02)

    await asyncio.gather(strangers(), *map(others, _WATCHED))
    return found


@contextmanager
def behind_a_proxy(
    database: str,
    data: DataSet,
    *,
    limits: bool,
    add: Callable[[Engine], None] = lambda _: None,
) -> Iterator[tuple[Filled, Server]]:
    """Serve a data set, and what `add` adds to it; a proxy may say who it forwards for."""
    machine = Machine(serving_python(), None, None)
    settings = {"RATE_LIMIT_ENABLED": str(limits).lower(), "TRUSTED_PROXIES": "127.0.0.1"}
    with (
        tempfile.TemporaryDirectory() as folder,
        filled(database, data, machine, Path(folder)) as filled_db,
    ):
        add(filled_db.engine)
        with serving_app(machine, filled_db.environment | settings, Path(folder)) as server:
            yield filled_db, server


def main(
    in_flight: Annotated[int, typer.Option(min=1)] = 540,
    networks: Annotated[int, typer.Option(min=1)] = 6,
    accounts: Annotated[int, typer.Option(min=1, max=800)] = 540,
    pause: Annotated[float, typer.Option(help="Seconds after an answer that is not 200.")] = 2.0,
    seconds: Annotated[float, typer.Option(min=1)] = 10,
    database: str = "sqlite",
    limits: Annotated[bool, typer.Option(help="RATE_LIMIT_ENABLED")] = True,
) -> None:
    """Watch a stranger and the other routes while so many right logins are in flight."""
    data = DataSet(users=1_000, posts=100)
    with behind_a_proxy(database, data, limits=limits) as (_, server):
        requests = [
            login(
                data,
                number % accounts + 1,
                f"10.0.{number % networks // 250}.{number % networks % 250 + 1}",
            )
            for number in range(in_flight)
        ]
        ours, theirs = multiprocessing.Pipe()
        sender = multiprocessing.get_context("spawn").Process(
            target=keep_in_flight, args=(theirs, server.url, requests, pause)
        )
        sender.start()
        time.sleep(3)
        found = asyncio.run(_watch(server.url, data, seconds))
        ours.send(None)
        logins: Seen = ours.recv()
        sender.join(10)
        memory = peak_memory_mib(server.pid)
    typer.echo(f"{database}, {in_flight} in flight, {networks} networks, {accounts} accounts")
    typer.echo(f"  logins            {logins}")
    for name, seen in found.items():
        typer.echo(f"  {name:17} {seen}")
    typer.echo(f"  memory            {memory or 0:.0f} MiB at most")


if __name__ == "__main__":
    typer.run(main)
