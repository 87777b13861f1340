"""The purge at a size, while the app serves: `python -m benchmarks.purging --rows 100000`.

It is killed half-way and run again. What it deletes a second, what requests notice of it, and
whether anything that is alive is missing afterwards.
"""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import quantiles
from typing import Annotated, Any

import httpx2
import typer
from sqlalchemy import func, select

from app.models.base import Base
from app.models.users import User
from benchmarks.databases import DATABASES, Filled, answers, filled
from benchmarks.dataset import CALLER_ID, DataSet
from benchmarks.expired import FIRST, MODELS, expire
from benchmarks.machine import Machine, Trouble, look_around
from benchmarks.servers import serving_app

_EVERY_SECONDS = 0.02
_QUIET_SECONDS = 10
_PATIENCE_SECONDS = 3600


@dataclass
class Load:
    """Requests that come every 20 ms, whether those before them are answered or not: two reads,
    then a new post. The time counts from when each was due."""

    url: str
    token: str
    posts: int
    took: list[float] = field(default_factory=list)
    refused: list[int] = field(default_factory=list)
    created: set[tuple[int]] = field(default_factory=set)
    _is_over: bool = False

    async def run(self) -> None:
        """Send them until `stop`."""
        headers, limits = {"Authorization": f"Bearer {self.token}"}, httpx2.Limits()
        async with httpx2.AsyncClient(
            base_url=self.url, headers=headers, timeout=30, limits=limits
        ) as client:
            sent: set[asyncio.Task[None]] = set()
            began, number = time.perf_counter(), 0
            while not self._is_over:
                due = began + number * _EVERY_SECONDS
                await asyncio.sleep(max(0, due - time.perf_counter()))
                task = asyncio.create_task(self._send(client, number, due))
                sent.add(task)
                task.add_done_callback(sent.discard)
                number += 1
            await asyncio.gather(*sent)

    async def _send(self, client: httpx2.AsyncClient, number: int, due: float) -> None:
        if number % 3 == 2:  # noqa: PLR2004
            body = {"title": f"New {number}", "content": "Hello", "tags": ["tag-01"]}
            answer = await client.post("/api/v1/posts", json=body)
        elif number % 3:
            answer = await client.get(f"/api/v1/posts/{number % self.posts + 1}")
        else:
            answer = await client.get("/api/v1/posts?page_size=20")
        self.took.append(time.perf_counter() - due)
        if not answer.is_success:
            self.refused.append(answer.status_code)
        elif answer.request.method == "POST":
            self.created.add((answer.json()["id"],))

    def stop(self) -> None:
        """Send no more."""
        self._is_over = True

    def line(self) -> str:
        """What the requests since the last line noticed."""
        p50, p99 = (1000 * quantiles(self.took, n=100)[n] for n in (49, 98))
        worst, count = 1000 * max(self.took), len(self.took)
        said = f"{count} requests: p50 {p50:.1f} ms, p99 {p99:.1f} ms, slowest {worst:.0f} ms"
        said += f", refused: {sorted(self.refused)}" if self.refused else ", none refused"
        self.took, self.refused = [], []
        return said


def main(
    databases: Annotated[str, typer.Option(help="Those that answer, if not said.")] = "",
    rows: Annotated[int, typer.Option(min=100, help="Of each kind.")] = 100_000,
) -> None:
    """Measure the purge."""
    # Ended politely, it ends its servers and drops its databases.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    machine = look_around()
    names = databases.split(",") if databases else [name for name in DATABASES if answers(name)]
    for name in names:
        with tempfile.TemporaryDirectory() as directory:
            place = (DataSet(1_000, 10_000), machine, Path(directory), "cimiento_purging")
            try:
                with filled(name, *place) as filled_db:
                    asyncio.run(_measure(filled_db, machine, rows))
            except Trouble as trouble:
                typer.echo(f"purging: {name}: {trouble}", err=True)
                raise typer.Exit(trouble.status) from None


async def _measure(filled_db: Filled, machine: Machine, rows: int) -> None:
    began = time.perf_counter()
    total = await asyncio.to_thread(expire, filled_db.engine, rows)
    took = time.perf_counter() - began
    typer.echo(f"{filled_db.name}: {total} rows that are due, inserted in {took:.0f} s")
    before = _alive(filled_db, rows)
    with serving_app(machine, filled_db.environment, filled_db.directory) as server:
        load = Load(server.url, filled_db.data.tokens()[CALLER_ID - 1], filled_db.data.posts)
        sending = asyncio.create_task(load.run())
        await asyncio.sleep(_QUIET_SECONDS)
        typer.echo(f"{filled_db.name}: before the purge, {load.line()}")
        seconds = await _purge(filled_db, machine, rows, kill=True)
        seconds += await _purge(filled_db, machine, rows, kill=False)
        typer.echo(f"{filled_db.name}: during the purge, {load.line()}")
        load.stop()
        await sending
    typer.echo(f"{filled_db.name}: {seconds:.0f} s, {total / seconds:.0f} rows/s in all")
    before["posts"] |= load.created
    _judge(filled_db, before, rows)


async def _purge(filled_db: Filled, machine: Machine, rows: int, *, kill: bool) -> float:
    """Run the command, and perhaps kill it when half of the users are left; return the seconds."""
    command = [machine.python.path, "-m", "app.cli", "purge"]
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=filled_db.directory,
        env=filled_db.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    began, ending = time.perf_counter(), asyncio.create_task(process.communicate())
    while kill and not ending.done():
        if await asyncio.to_thread(_due, filled_db, User, rows) < rows // 2:
            process.kill()
            kill = False
        await asyncio.sleep(0.5)
    said, complaint = await asyncio.wait_for(ending, _PATIENCE_SECONDS)
    took = time.perf_counter() - began
    typer.echo(f"{filled_db.name}: status {process.returncode} after {took:.0f} s {said.decode()}")
    if process.returncode not in {0, -9}:
        raise Trouble(f"the purge failed: {complaint.decode()}")
    return took


def _due(filled_db: Filled, model: type[Base], rows: int) -> int:
    """How many rows there still are of those that are due."""
    column: Any = next(iter(model.__table__.primary_key))
    with filled_db.engine.connect() as connection:
        is_text = column.type.python_type is str
        due = column.like("old%") if is_text else column.between(FIRST, FIRST + 2 * rows - 1)
        return connection.scalar(select(func.count()).select_from(model).where(due)) or 0


def _alive(filled_db: Filled, rows: int) -> dict[str, set[Any]]:
    """The keys of all that is alive."""
    alive: dict[str, set[Any]] = {}
    with filled_db.engine.connect() as connection:
        for model in MODELS:
            key = [*model.__table__.primary_key]
            alive[model.__tablename__] = {
                tuple(row)
                for row in connection.execute(select(*key))
                if isinstance(row[0], str) or not FIRST <= row[0] < FIRST + 2 * rows
            }
    # Those of the data set that no post has are due as well.
    alive["tags"] &= {(tag_id,) for _, tag_id in alive["post_tags"]}
    alive["idempotency_keys"] = set()
    return alive


def _judge(filled_db: Filled, before: dict[str, set[Any]], rows: int) -> None:
    after = _alive(filled_db, rows)
    missing = {name: len(keys - after[name]) for name, keys in before.items()}
    left = {model.__tablename__: _due(filled_db, model, rows) for model in MODELS}
    alive = sum(map(len, before.values()))
    typer.echo(
        f"{filled_db.name}: of {alive} rows that are alive, {sum(missing.values())} are missing;"
        f" {sum(left.values())} that were due are left"
    )
    for name, found in (("missing", missing), ("left", left)):
        if any(found.values()):
            raise Trouble(f"{name}: { {key: number for key, number in found.items() if number} }")


if __name__ == "__main__":
    cli = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    cli.command()(main)
    cli()
