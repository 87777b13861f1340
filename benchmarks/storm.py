"""A storm of logins: what those who are logged in already notice of it."""

from __future__ import annotations

import time
from dataclasses import dataclass

import typer

from benchmarks.load import Load, Sample
from benchmarks.machine import Machine
from benchmarks.targets import Target
from benchmarks.works import WORKS

LOGGING_IN = 8
_READING = 4
# About 60 requests a second for each work, from four connections: people, not a flood.
_PAUSE_MS = 60
_READ_WORKS = ("post", "me")
_LEAST_SECONDS = 2


@dataclass(frozen=True)
class Storm:
    """The p99 of a reading work at a modest rate, without and with logins all the while."""

    database: str
    workers: int
    work: str
    quiet_p99_ms: float
    p99_ms: float
    rps: float
    logins_rps: float


def storm(target: Target, machine: Machine, *, seconds: int) -> list[Storm]:
    """Read for a while in peace, then once more while others log in without pause."""
    seconds = max(seconds, _LEAST_SECONDS)
    loads = [target.load(machine, WORKS[work].requests(target), name=work) for work in _READ_WORKS]
    logins = target.load(machine, WORKS["login"].requests(target), name="login")
    quiet = _read(loads, seconds)
    logging_in = logins.start(seconds + 1, connections=LOGGING_IN)
    try:
        time.sleep(0.5)
        stormy = _read(loads, seconds)
        logged_in = logging_in.result()
    finally:
        logging_in.stop()
    return [
        _tell(_storm(target, *found, logged_in))
        for found in zip(_READ_WORKS, quiet, stormy, strict=True)
    ]


def _read(loads: list[Load], seconds: int) -> list[Sample]:
    running = [load.start(seconds, connections=_READING, pause_ms=_PAUSE_MS) for load in loads]
    try:
        return [one.result() for one in running]
    finally:
        for one in running:
            one.stop()


def _storm(target: Target, work: str, quiet: Sample, stormy: Sample, logins: Sample) -> Storm:
    return Storm(
        database=target.filled.name,
        workers=target.server.workers,
        work=work,
        quiet_p99_ms=quiet.p99_ms,
        p99_ms=stormy.p99_ms,
        rps=stormy.rps,
        logins_rps=logins.rps,
    )


def _tell(found: Storm) -> Storm:
    place = f"{found.database} x{found.workers}"
    typer.echo(f"{place:14} {found.work:10} p99 {found.p99_ms:.1f} ms among logins", err=True)
    return found
