"""Whole runs: every database and number of workers, or one database at many sizes."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import typer

from benchmarks.databases import Filled, filled
from benchmarks.dataset import DataSet
from benchmarks.machine import Machine
from benchmarks.rounds import Bench, Measurement, Options
from benchmarks.servers import serving_bare
from benchmarks.storm import Storm, storm
from benchmarks.targets import serving_target

GROWTH_WORKS = ("post", "page", "me", "page450", "cursor", "tagged", "users")
_GROWING_POSTS = [DataSet(1_000, 10**power) for power in (3, 4, 5, 6)]
_GROWING_USERS = [DataSet(10**power, 10_000) for power in (2, 3, 4, 5)]


@dataclass
class Results:
    """What a run found, as far as it came."""

    measured: list[Measurement] = field(default_factory=list)
    storms: list[Storm] = field(default_factory=list)
    growth: list[Measurement] = field(default_factory=list)


@contextmanager
def bench(machine: Machine, options: Options) -> Iterator[Bench]:
    """The anchor, served beside everything that is measured, and a directory for the run."""
    with tempfile.TemporaryDirectory(prefix="cimiento-bench-") as name:
        directory = Path(name)
        with serving_bare(machine, directory) as anchor:
            yield Bench(machine, options, anchor, directory)


@contextmanager
def data_on(database: str, data: DataSet, bench: Bench) -> Iterator[Filled]:
    """A database with the data, in a directory of its own."""
    size = f"{data.users:,} users, {data.posts:,} posts"
    typer.echo(f"{database}: creating {size} …", err=True)
    with tempfile.TemporaryDirectory(dir=bench.directory) as name:
        begun = time.monotonic()
        with filled(database, data, bench.machine, Path(name)) as filled_db:
            typer.echo(f"{database}: created in {time.monotonic() - begun:.1f} s", err=True)
            yield filled_db


def compare(
    bench: Bench,
    results: Results,
    *,
    databases: Sequence[str],
    workers: Sequence[int],
    data: DataSet,
    storms: bool,
) -> None:
    """The works of the options, and the storm, on each database with each number of workers."""
    for database in databases:
        with data_on(database, data, bench) as filled_db:
            for count in workers_for(database, workers):
                with serving_target(filled_db, bench.machine, workers=count) as target:
                    results.measured += bench.measure(target)
                    if storms:
                        seconds = bench.options.seconds
                        results.storms += storm(target, bench.machine, seconds=seconds)


def workers_for(database: str, workers: Sequence[int]) -> Sequence[int]:
    """SQLite is served by one worker, whatever is asked for."""
    return workers if database != "sqlite" else [1]


def grow(bench: Bench, results: Results, *, databases: Sequence[str]) -> None:
    """The reading works, at growing numbers of posts and then of users."""
    for database in databases:
        for data in [*_GROWING_POSTS, *_GROWING_USERS]:
            with (
                data_on(database, data, bench) as filled_db,
                serving_target(filled_db, bench.machine) as target,
            ):
                results.growth += bench.measure(target)
