"""A flood of invalid registrations from one address: what it does to the limits of others.

    python -m benchmarks.flood --requests 76000

An account is locked for strangers first, by wrong logins. Behind the flood, each registration of
another address, a stranger's try on that account must still be refused.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from typing import Annotated

import typer

from benchmarks.dataset import DataSet
from benchmarks.logins_in_flight import Line, Seen, behind_a_proxy, login
from benchmarks.machine import peak_memory_mib

_ATTACKER = "203.0.113.66"
_LOCKED_ID = 7
_REFUSED = 429
_TRIES = 20


def _registration(number: int) -> bytes:
    body = json.dumps({"email": f"flood{number}@example.com", "name": "Ana", "password": "weak"})
    head = (
        f"POST /api/v1/auth/register HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-For: {_ATTACKER}"
        f"\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return (head + body).encode()


def _wrong_login(data: DataSet, network: int) -> bytes:
    right = login(data, _LOCKED_ID, f"198.51.100.{network}")
    return right[:-1] + b"~"  # the password's last letter


async def _tries(url: str, data: DataSet, first: int) -> Seen:
    """Wrong logins on one account, each from a network of its own."""
    line, seen = Line(url), Seen()
    for number in range(_TRIES):
        await line.send(_wrong_login(data, first + number), seen)
    line.close()
    return seen


async def _flood(url: str, requests: int, connections: int) -> Seen:
    numbers, seen = itertools.count(), Seen()

    async def one() -> None:
        line = Line(url)
        while (number := next(numbers)) < requests:
            await line.send(_registration(number), seen)
        line.close()

    await asyncio.gather(*(one() for _ in range(connections)))
    return seen


def main(
    requests: Annotated[int, typer.Option(min=1)] = 76_000,
    connections: Annotated[int, typer.Option(min=1)] = 16,
    database: str = "sqlite",
) -> None:
    """Lock an account for strangers, flood, and try it again."""
    data = DataSet(users=1_000, posts=100)
    with behind_a_proxy(database, data, limits=True) as (_, server):
        before = asyncio.run(_tries(server.url, data, 1))
        started = time.perf_counter()
        flood = asyncio.run(_flood(server.url, requests, connections))
        seconds = time.perf_counter() - started
        behind = asyncio.run(_tries(server.url, data, 101))
        memory = peak_memory_mib(server.pid)
    typer.echo(f"{database}, {requests} registrations in {seconds:.0f} s, {memory or 0:.0f} MiB")
    for name, seen in {"tries before": before, "flood": flood, "tries behind": behind}.items():
        typer.echo(f"  {name:13} {seen}")
    if behind.took.keys() != {_REFUSED}:
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
