"""Profiles of the server under load: where the time of a work goes."""

from __future__ import annotations

import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path

from benchmarks.databases import Filled
from benchmarks.load import CONNECTIONS
from benchmarks.machine import Machine, Trouble
from benchmarks.targets import Target, serving_target
from benchmarks.works import WORKS

RESULTS = Path(__file__).with_name("results")
_LEAST_SECONDS = 5
_SAMPLES_A_SECOND = 250
_MISSING = (
    "no profiler is installed: .venv/bin/python -m pip install py-spy (a flame graph) "
    "or pyinstrument (a tree of calls)"
)


def require_profiler() -> None:
    """Raise Trouble, saying what to install, if there is none."""
    if not (shutil.which("py-spy") or find_spec("pyinstrument")):
        raise Trouble(_MISSING, status=2)


def profile(filled: Filled, machine: Machine, *, work: str, seconds: int) -> Path:
    """Run a work under a profiler; return the file with what it saw."""
    seconds = max(seconds, _LEAST_SECONDS)
    RESULTS.mkdir(exist_ok=True)
    file = RESULTS / f"{filled.name}-{work}"
    if shutil.which("py-spy"):
        return _watched(filled, machine, work, seconds, file.with_suffix(".svg"))
    return _wrapped(filled, machine, work, seconds, file.with_suffix(".html"))


def _watched(filled: Filled, machine: Machine, work: str, seconds: int, file: Path) -> Path:
    """From outside, by py-spy: only what happens under load, at nearly full speed."""
    # By thread: those that wait in a pool would drown the one that works.
    options = [
        "--threads",
        "--rate",
        str(_SAMPLES_A_SECOND),
        "--duration",
        str(seconds),
        "--output",
        str(file),
    ]
    with serving_target(filled, machine) as target:
        command = ["py-spy", "record", *options, "--pid", str(target.server.pid)]
        _load(target, machine, work, 1)
        watcher = subprocess.Popen(  # noqa: S603  put together above
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        try:
            _load(target, machine, work, seconds + 1)
            said, _ = watcher.communicate(timeout=60)
        finally:
            if watcher.poll() is None:
                watcher.kill()
                watcher.wait()
    if watcher.returncode:
        raise Trouble(f"py-spy failed (it may need to be run as root): {said.strip()}")
    return file


def _wrapped(filled: Filled, machine: Machine, work: str, seconds: int, file: Path) -> Path:
    """From inside, by pyinstrument: start-up and all, and slower for it."""
    wrapper = ["-m", "pyinstrument", "--renderer", "html", "--outfile", str(file)]
    with serving_target(filled, machine, wrapper=wrapper) as target:
        _load(target, machine, work, seconds)
    if not file.exists():
        raise Trouble("pyinstrument wrote nothing")
    return file


def _load(target: Target, machine: Machine, work: str, seconds: int) -> None:
    requests = WORKS[work].requests(target)
    target.load(machine, requests, name=work).run(seconds, connections=CONNECTIONS)
