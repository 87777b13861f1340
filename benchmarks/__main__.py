"""The command behind `scripts/bench`."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from benchmarks import report
from benchmarks.databases import DATABASES, answers
from benchmarks.dataset import DataSet
from benchmarks.machine import Machine, Trouble, alone, look_around
from benchmarks.profiles import profile, require_profiler
from benchmarks.rounds import Bench, Options
from benchmarks.runs import GROWTH_WORKS, Results, bench, compare, data_on, grow
from benchmarks.works import WORKS

_STORM = "storm"
_WORKS = ", ".join(f"{work.name} ({work.title})" for work in WORKS.values())
# A crash shows what every program shows, and no local variables.
cli = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@cli.command(epilog=f"Works: {_WORKS}; {_STORM} (reading while many log in).")
def main(
    databases: Annotated[str, typer.Option(help="Those that answer, if not said.")] = "",
    workers: Annotated[str, typer.Option(help="SQLite is served by one in any case.")] = "1,2",
    works: Annotated[str, typer.Option(help="Names of works, with commas.")] = "",
    seconds: Annotated[int, typer.Option(min=1, help="Of one measurement.")] = 1,
    rounds: Annotated[int, typer.Option(min=1, help="The median of them counts.")] = 3,
    users: Annotated[int, typer.Option(min=10)] = 1_000,
    posts: Annotated[int, typer.Option(min=100)] = 10_000,
    growth: Annotated[bool, typer.Option("--growth", help="By size.")] = False,
    profiled: Annotated[str, typer.Option("--profile", help="Profile the server at a work.")] = "",
    json_file: Annotated[Path | None, typer.Option("--json", help="Write all results.")] = None,
) -> None:
    """Measure the API beside a bare app on the same machine."""
    # Ended politely, it ends its servers and drops its databases.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    data, names = DataSet(users, posts), _named(works, (*WORKS, _STORM))
    with _trouble_in_one_line():
        options = Options(seconds, rounds, _in_order(GROWTH_WORKS if growth else names))
        if growth:
            _run(partial(grow, databases=_databases(databases)), options, json_file)
        elif profiled:
            require_profiler()
            (work,) = _named(profiled, tuple(WORKS))[:1]
            _run(
                partial(_profile, work=work, database=_databases(databases)[0], data=data), options
            )
        else:
            job = partial(
                compare,
                databases=_databases(databases),
                workers=_counts(workers),
                data=data,
                storms=_STORM in names,
            )
            _run(job, options, json_file)


@contextmanager
def _trouble_in_one_line() -> Iterator[None]:
    try:
        yield
    except Trouble as trouble:
        typer.echo(f"bench: {trouble}", err=True)
        raise typer.Exit(trouble.status) from None


def _run(
    job: Callable[[Bench, Results], None], options: Options, json_file: Path | None = None
) -> None:
    """Do it, and show what was found, also when it was cut short."""
    machine, results = look_around(), Results()
    typer.echo(f"Served by {machine.python}", err=True)
    try:
        with alone(), bench(machine, options) as opened:
            job(opened, results)
    finally:
        for part in _parts(results):
            typer.echo(f"\n{part}")
    if json_file:
        _write(json_file, results, machine, options)


def _profile(opened: Bench, _: Results, *, work: str, database: str, data: DataSet) -> None:
    with data_on(database, data, opened) as filled_db:
        seconds = opened.options.seconds
        file = profile(filled_db, opened.machine, work=work, seconds=seconds)
    typer.echo(f"Written: {file}")


def _databases(given: str) -> list[str]:
    """The databases asked for, or those that answer."""
    if not given:
        return [name for name in DATABASES if answers(name)]
    names = _named(given, DATABASES)
    for name in names:
        if not answers(name):
            raise Trouble(f"{name} does not answer: BENCH_{name.upper()}_URL says where", status=2)
    return list(names)


def _in_order(names: Sequence[str]) -> tuple[str, ...]:
    return tuple(name for name in WORKS if name in names)


def _named(given: str, known: tuple[str, ...]) -> tuple[str, ...]:
    """The names given with commas, all by default."""
    names = tuple(part.strip() for part in given.split(",") if part.strip())
    unknown = [name for name in names if name not in known]
    if unknown:
        raise typer.BadParameter(f"{', '.join(unknown)}: not one of {', '.join(known)}")
    return names or known


def _counts(given: str) -> list[int]:
    try:
        counts = [int(part) for part in given.split(",")]
    except ValueError:
        counts = []
    if not counts or min(counts) < 1:
        raise typer.BadParameter("numbers of workers, with commas", param_hint="--workers")
    return counts


def _parts(results: Results) -> Iterator[str]:
    yield from report.tables(results.measured)
    if results.storms:
        yield report.storm_table(results.storms)
    yield from report.growth_tables(results.growth)


def _write(file: Path, results: Results, machine: Machine, options: Options) -> None:
    facts = {"at": datetime.now(UTC).isoformat(), "python": asdict(machine.python)}
    everything = {**facts, "options": asdict(options), **asdict(results)}
    file.write_text(json.dumps(everything, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    cli()
