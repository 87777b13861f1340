"""Endless searchers, and what others notice of them.

    python -m benchmarks.searchers --posts 1000000 --searchers 24

Strangers search without pause, for words of every rarity; meanwhile one post by its id and the
first page are read, and posts are created. The statements that run in the server are counted, and
once more a second after the searchers have gone.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import time
from itertools import cycle
from typing import Annotated
from urllib.parse import urlencode

import typer
from sqlalchemy import Engine, text

from benchmarks.dataset import DataSet
from benchmarks.logins_in_flight import Line, Seen, behind_a_proxy, keep_in_flight
from benchmarks.machine import peak_memory_mib
from benchmarks.searching import SEARCHES, add_posts
from benchmarks.targets import API

_PAUSE_SECONDS = 0.02
_RUNNING = {
    "mysql": "SELECT count(*) FROM information_schema.processlist"
    " WHERE db = DATABASE() AND command = 'Query' AND id <> connection_id()",
    "postgresql": "SELECT count(*) FROM pg_stat_activity"
    " WHERE datname = current_database() AND state = 'active' AND pid <> pg_backend_pid()",
}


def _get(path: str, **params: str) -> bytes:
    return f"GET {API}{path}?{urlencode(params)} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()


def _create(token: str) -> bytes:
    body = '{"title": "A post", "content": "while others search", "status": "published"}'
    head = (
        f"POST {API}/posts HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return (head + body).encode()


def _running(engine: Engine) -> int:
    """How many statements run in the server; none of SQLite's do."""
    statement = _RUNNING.get(engine.dialect.name)
    if statement is None:
        return 0
    with engine.connect() as connection:
        return int(connection.execute(text(statement)).scalar_one())


async def _watch(url: str, engine: Engine, watched: dict[str, bytes], seconds: float) -> int:
    """Ask for what is watched, and return the most statements that ran meanwhile."""
    end, most = time.monotonic() + seconds, 0

    async def ask(request: bytes, seen: Seen) -> None:
        line = Line(url)
        while time.monotonic() < end:
            await line.send(request, seen)
            await asyncio.sleep(_PAUSE_SECONDS)
        line.close()

    async def count() -> None:
        nonlocal most
        while time.monotonic() < end:
            most = max(most, await asyncio.to_thread(_running, engine))
            await asyncio.sleep(_PAUSE_SECONDS * 5)

    found = {name: Seen() for name in watched}
    asked = (ask(request, found[name]) for name, request in watched.items())
    await asyncio.gather(*asked, count())
    for name, seen in found.items():
        typer.echo(f"  {name:14} {seen}")
    return most


def main(
    posts: Annotated[int, typer.Option(min=5_000)] = 100_000,
    searchers: Annotated[int, typer.Option(min=1)] = 24,
    networks: Annotated[int, typer.Option(min=1)] = 24,
    seconds: Annotated[float, typer.Option(min=1)] = 20,
    database: str = "sqlite",
) -> None:
    """Watch others while strangers search."""
    data = DataSet(1_000, 100)
    served = behind_a_proxy(
        database, data, limits=False, add=lambda engine: add_posts(engine, posts)
    )
    with served as (filled_db, server):
        kinds = cycle(SEARCHES.values())
        requests = [
            _get("/posts", **next(kinds)).replace(
                b"\r\n\r\n", f"\r\nX-Forwarded-For: 10.0.0.{n % networks}\r\n\r\n".encode()
            )
            for n in range(searchers)
        ]
        watched = {
            "/posts/7": _get("/posts/7"),
            "/posts": _get("/posts"),
            "POST /posts": _create(data.tokens()[1]),
        }
        typer.echo(f"{database}, {posts} posts, {searchers} searchers, {networks} networks")
        asyncio.run(_watch(server.url, filled_db.engine, watched, seconds / 4))
        typer.echo("  with the searchers:")
        ours, theirs = multiprocessing.Pipe()
        sender = multiprocessing.get_context("spawn").Process(
            target=keep_in_flight, args=(theirs, server.url, requests, 0)
        )
        sender.start()
        time.sleep(3)
        most = asyncio.run(_watch(server.url, filled_db.engine, watched, seconds))
        ours.send(None)
        typer.echo(f"  searches       {ours.recv()}")
        sender.join(10)
        time.sleep(1)
        behind = _running(filled_db.engine)
        memory = peak_memory_mib(server.pid)
    typer.echo(f"  statements     {most} at most, {behind} a second after; {memory or 0:.0f} MiB")


if __name__ == "__main__":
    typer.run(main)
