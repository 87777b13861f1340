"""This API beside a careful Fastify app on the same SQLite database: `python -m benchmarks.beside`.

Both serve at the same time, on the same core, and are loaded in turns: short slices, so that the
machine's moods hit both alike. The median of the pairs' ratios counts. Fastify writes no index of
words, unless it is asked to (`create with words`).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Annotated

import typer

from benchmarks.databases import Filled, filled
from benchmarks.dataset import SECRET, DataSet
from benchmarks.load import Load
from benchmarks.machine import Machine, Trouble, alone, look_around
from benchmarks.peers import COLUMNS
from benchmarks.servers import Server, serving
from benchmarks.targets import Target, serving_target
from benchmarks.works import WORKS

_SOURCE = Path(__file__).with_name("fastify")
_WITH_WORDS = "create with words"
_WARM_UP_SECONDS = 2


def main(
    seconds: Annotated[int, typer.Option(min=1, help="Of one slice.")] = 2,
    pairs: Annotated[int, typer.Option(min=1, help="Slices of each.")] = 7,
) -> None:
    """Compare the speed of both at the works of `benchmarks/peers.py`."""
    machine = look_around()
    with alone(), tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        try:
            installed = _installed(directory)
            with (
                filled("sqlite", DataSet(), machine, directory) as filled_db,
                serving_target(filled_db, machine) as ours,
            ):
                for work in (*COLUMNS, _WITH_WORDS):
                    words = work == _WITH_WORDS
                    with _fastify(machine, filled_db, installed, words=words) as server:
                        typer.echo(_compared(ours, server, machine, work, seconds, pairs))
        except Trouble as trouble:
            typer.echo(f"beside: {trouble}", err=True)
            raise typer.Exit(trouble.status) from None


def _installed(directory: Path) -> Path:
    """Return a folder with the app and its packages; the driver of SQLite is compiled."""
    place = directory / "fastify"
    shutil.copytree(_SOURCE, place, ignore=shutil.ignore_patterns("node_modules"))
    node = shutil.which("node")
    if not node:
        raise Trouble("node is not installed")
    _run(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"], place)
    modules = _run(["npm", "root", "--global"], place).strip()
    gyp = Path(modules, "npm", "node_modules", "node-gyp", "bin", "node-gyp.js")
    headers = f"--nodedir={Path(node).resolve().parent.parent}"
    driver = place / "node_modules" / "better-sqlite3"
    _run([node, str(gyp), "rebuild", "--release", headers], driver)
    return place


def _run(command: list[str], directory: Path) -> str:
    done = subprocess.run(  # noqa: S603  our own commands
        command, cwd=directory, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise Trouble(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


@contextmanager
def _fastify(
    machine: Machine, filled_db: Filled, installed: Path, *, words: bool
) -> Iterator[Server]:
    environment = {
        "PATH": os.environ["PATH"],
        "NODE_ENV": "production",
        "DATABASE": str(filled_db.engine.url.database),
        "SECRET": SECRET,
        "FTS": "1" if words else "",
    }
    command = ["node", str(installed / "server.mjs")]
    with serving(machine, command, environment, filled_db.directory) as server:
        yield server


def _compared(
    ours: Target, server: Server, machine: Machine, work: str, seconds: int, pairs: int
) -> str:
    name = work.partition(" ")[0]
    requests = WORKS[name].requests(ours)
    theirs = replace(ours, server=server)
    loads: dict[str, Load] = {
        key: target.load(machine, requests, name=key)
        for key, target in (("ours", ours), ("theirs", theirs))
    }
    for load in loads.values():
        load.run(_WARM_UP_SECONDS)
    found: dict[str, list[float]] = {key: [] for key in loads}
    for place in range(pairs):
        # In turns also within a pair: who goes first is not always the same.
        for key in sorted(loads, reverse=bool(place % 2)):
            found[key].append(loads[key].run(seconds).rps)
    ratio = median(a / b for a, b in zip(found["ours"], found["theirs"], strict=True))
    mine, other = median(found["ours"]), median(found["theirs"])
    return f"{work:18} {mine:6.0f} req/s, Fastify {other:6.0f}: ratio {ratio:.2f}, {pairs} pairs"


if __name__ == "__main__":
    typer.run(main)
