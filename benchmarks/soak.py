"""Memory over a long mixed load: `python -m benchmarks.soak --minutes 30 --databases sqlite`.

Reads, pages, new posts and logins at a modest rate; what the serving process holds is printed
every minute, and compared with the second.
"""

from __future__ import annotations

import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.databases import filled
from benchmarks.dataset import DataSet
from benchmarks.machine import Trouble, alone, look_around
from benchmarks.targets import serving_target
from benchmarks.works import WORKS

_PAUSES_MS = {"post1000": 20, "page1000": 40, "me1000": 20, "create": 40, "page450": 40}
_LOGIN_PAUSE_MS = 1_000
_MINUTE = 60
_MOST_GROWTH = 1.1


def main(
    databases: Annotated[str, typer.Option(help="One after the other.")] = "sqlite",
    minutes: Annotated[int, typer.Option(min=3)] = 30,
    logins: Annotated[bool, typer.Option(help="Each core that hashes holds 19 MiB.")] = True,
) -> None:
    """Load a server for a while, and watch its memory."""
    machine = look_around()
    for name in databases.split(","):
        with (
            alone(),
            tempfile.TemporaryDirectory() as directory,
            filled(name, DataSet(1_000, 10_000), machine, Path(directory)) as filled_db,
            serving_target(filled_db, machine) as target,
            ExitStack() as running,
        ):
            pauses = _PAUSES_MS | ({"login": _LOGIN_PAUSE_MS} if logins else {})
            for work, pause in pauses.items():
                load = target.load(machine, WORKS[work].requests(target), name=work)
                started = load.start(minutes * _MINUTE, connections=2, pause_ms=pause)
                running.callback(started.stop)
            held = []
            for minute in range(1, minutes):
                time.sleep(_MINUTE)
                held.append(_resident_mib(target.server.pid))
                typer.echo(f"{name}: minute {minute}: {held[-1]:.0f} MiB")
        if held[-1] > held[1] * _MOST_GROWTH:
            raise Trouble(f"{name}: {held[1]:.0f} MiB in minute 2, {held[-1]:.0f} in the last")


def _resident_mib(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * 4_096 / 2**20


if __name__ == "__main__":
    typer.run(main)
