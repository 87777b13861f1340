"""The machine under the benchmarks: its tools, its cores, and which Python serves."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

ROOT = Path(__file__).parent.parent
SYSTEM_PYTHON = "/usr/bin/python3"
_PROBE = """
import json, platform, sqlite3, sys, sysconfig
import httptools, pydantic_core, sqlalchemy, uvloop
print(json.dumps({
    "path": sys.executable, "version": platform.python_version(), "sqlite": sqlite3.sqlite_version,
    "abi": sysconfig.get_config_var("SOABI"), "arguments": sysconfig.get_config_var("CONFIG_ARGS"),
}))
"""


class Trouble(Exception):
    """Something that ends the run; said in one line. `status` is the exit status."""

    def __init__(self, line: str, *, status: int = 1) -> None:
        super().__init__(line)
        self.status = status


@dataclass(frozen=True)
class Python:
    """An interpreter that can serve, and what it was built like."""

    path: str
    version: str
    sqlite: str
    optimised: bool

    def __str__(self) -> str:
        build = "optimised build" if self.optimised else "build without optimisations"
        return f"Python {self.version} ({build}, {self.path}), SQLite {self.sqlite}"


@dataclass(frozen=True)
class Machine:
    """What a run stands on. The cores are None where processes cannot be kept apart."""

    python: Python
    server_core: int | None
    load_core: int | None

    def environment(self, **settings: object) -> dict[str, str]:
        """What a server sees: its settings (lower case here) and no others of ours."""
        kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        given = {name.upper(): str(value) for name, value in settings.items()}
        return kept | {"PYTHONPATH": _python_path()} | given


def look_around() -> Machine:
    """Return the machine this runs on; raise Trouble without the load generator."""
    if shutil.which("wrk") is None:
        raise Trouble("wrk is missing: install the package wrk of your system", status=2)
    can_pin = shutil.which("taskset") is not None and hasattr(os, "sched_getaffinity")
    cores = sorted(os.sched_getaffinity(0)) if can_pin else []
    server, load = cores[:2] if len(cores) > 1 else (None, None)
    return Machine(serving_python(), server, load)


def pinned(command: list[str], core: int | None) -> list[str]:
    """The command, kept on one core."""
    return command if core is None else ["taskset", "-c", str(core), *command]


@contextmanager
def alone() -> Iterator[None]:
    """Wait until no other benchmark runs here: each would measure the other."""
    with (Path(tempfile.gettempdir()) / "cimiento-bench.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            typer.echo("Another benchmark is running; waiting for its end …", err=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def peak_memory_mib(pid: int) -> float | None:
    """The most memory a process and its children ever held (RSS); None where it is unknown.

    Pages that they share count once for each.
    """
    try:
        peaks = [_peak_kib(process) for process in family(pid)]
    except OSError:
        return None
    return sum(peaks) / 1024


def family(pid: int) -> list[int]:
    """A process and all below it."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(member for child in children for member in family(int(child)))]


def _peak_kib(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))


def serving_python() -> Python:
    """The virtualenv's Python, unless the system's is the same one built to be faster."""
    own = _probe(sys.executable)
    if own is None:
        raise Trouble("the virtualenv's Python does not run", status=2)
    chosen = os.environ.get("BENCH_PYTHON")
    other = _probe(chosen or SYSTEM_PYTHON)
    if chosen and (other is None or other["abi"] != own["abi"]):
        raise Trouble(f"BENCH_PYTHON={chosen} cannot use the virtualenv's packages", status=2)
    faster = other is not None and other["abi"] == own["abi"] and not _is_optimised(own)
    if other is not None and (chosen or (faster and _is_optimised(other))):
        own = other
    return Python(own["path"], own["version"], own["sqlite"], _is_optimised(own))


def _is_optimised(facts: dict[str, Any]) -> bool:
    arguments = facts["arguments"] or ""
    # Debian's packages are built with profiles too, by a make target that leaves no argument;
    # its directory of wheels shows it.
    return "--enable-optimizations" in arguments or "/usr/share/python-wheels" in arguments


def _probe(python: str) -> dict[str, Any] | None:
    """What an interpreter says of itself; None unless it takes the virtualenv's packages."""
    command, path = [python, "-c", _PROBE], _python_path()
    try:
        probe = subprocess.run(  # noqa: S603  an interpreter of this machine
            command, env={"PYTHONPATH": path}, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    facts: dict[str, Any] = json.loads(probe.stdout)
    return facts


def _python_path() -> str:
    return os.pathsep.join([str(ROOT), sysconfig.get_path("purelib")])
