"""This checkout beside another one: `python -m benchmarks.versions ../before --work create`.

Both serve the same database at the same time, on the same core, and are loaded in turns: short
slices, so that the machine's moods hit both alike. The median of the pairs' ratios counts, of
requests a second and of the CPU time that a request takes in the server's process.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Annotated

import typer

from app.models.posts import Post
from benchmarks.databases import DATABASES, answers, filled
from benchmarks.dataset import DataSet
from benchmarks.load import Load
from benchmarks.machine import ROOT, Machine, Trouble, alone, look_around
from benchmarks.servers import serving_app
from benchmarks.targets import Target, serving_target
from benchmarks.works import WORKS

_TICKS = os.sysconf("SC_CLK_TCK")
_WARM_UP_SECONDS = 2


def main(
    other: Annotated[Path, typer.Argument(help="A checkout whose tables are a part of ours.")],
    databases: Annotated[str, typer.Option(help="Those that answer, if not said.")] = "",
    work: Annotated[str, typer.Option(help="One of scripts/bench's.")] = "create",
    seconds: Annotated[int, typer.Option(min=1, help="Of one slice.")] = 2,
    pairs: Annotated[int, typer.Option(min=1, help="Slices of each.")] = 15,
) -> None:
    """Compare the speed of two checkouts."""
    machine = look_around()
    names = databases.split(",") if databases else [name for name in DATABASES if answers(name)]
    with alone(), tempfile.TemporaryDirectory() as directory:
        for name in names:
            try:
                _compare(name, machine, Path(directory), other, work, seconds, pairs)
            except Trouble as trouble:
                typer.echo(f"versions: {name}: {trouble}", err=True)
                raise typer.Exit(trouble.status) from None


def _compare(
    name: str,
    machine: Machine,
    directory: Path,
    other: Path,
    work: str,
    seconds: int,
    pairs: int,
) -> None:
    with filled(name, DataSet(1_000, 10_000), machine, directory) as filled_db:
        path = filled_db.environment["PYTHONPATH"].replace(str(ROOT), str(other.resolve()), 1)
        environment = filled_db.environment | {"PYTHONPATH": path}
        with (
            serving_target(filled_db, machine) as ours,
            serving_app(machine, environment, directory) as server,
        ):
            theirs = replace(ours, server=server)
            loads = {
                "ours": (ours, _load(ours, machine, work, "ours")),
                "theirs": (theirs, _load(theirs, machine, work, "theirs")),
            }
            for _, load in loads.values():
                load.run(_WARM_UP_SECONDS)
                ours.count(Post)  # waits until nothing is written any more
                WORKS[work].check(ours)
            found: dict[str, list[tuple[float, float]]] = {key: [] for key in loads}
            for place in range(pairs):
                # In turns also within a pair: who goes first is not always the same.
                for key in sorted(loads, reverse=bool(place % 2)):
                    target, load = loads[key]
                    found[key].append(_slice(target, load, seconds))
    typer.echo(_line(name, work, found))


def _load(target: Target, machine: Machine, work: str, name: str) -> Load:
    return target.load(machine, WORKS[work].requests(target), name=name)


def _slice(target: Target, load: Load, seconds: int) -> tuple[float, float]:
    """Requests a second, and microseconds of CPU a request."""
    before = _cpu_seconds(target.server.pid)
    sample = load.run(seconds)
    return sample.rps, (_cpu_seconds(target.server.pid) - before) / sample.requests * 1e6


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _line(name: str, work: str, found: dict[str, list[tuple[float, float]]]) -> str:
    parts = []
    for index, (what, digits) in enumerate((("req/s", 0), ("µs CPU a request", 1))):
        ours, theirs = ([each[index] for each in found[key]] for key in ("ours", "theirs"))
        ratio = median(a / b for a, b in zip(ours, theirs, strict=True))
        pair = f"{median(theirs):.{digits}f} → {median(ours):.{digits}f}"
        parts.append(f"{what} {pair} (ratio {ratio:.3f})")
    return f"{name:10} {work}: {'; '.join(parts)}, {len(found['ours'])} pairs"


if __name__ == "__main__":
    typer.run(main)
