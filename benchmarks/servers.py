"""Servers under test: the app as people run it, and the bare app beside it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx2

from benchmarks.machine import Machine, Trouble, pinned

_PATIENCE_SECONDS = 30
_STARTED = "Application startup complete"


@dataclass(frozen=True)
class Server:
    """A running server."""

    pid: int
    url: str
    workers: int


def migrate(machine: Machine, environment: Mapping[str, str], directory: Path) -> None:
    """Make the tables, as `scripts/migrate` does."""
    command = [machine.python.path, "-m", "app.cli", "migrate"]
    done = subprocess.run(  # noqa: S603  our own command
        command, cwd=directory, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise Trouble(f"migrating failed:\n{done.stdout}{done.stderr}")


@contextmanager
def serving_app(
    machine: Machine,
    environment: Mapping[str, str],
    directory: Path,
    *,
    workers: int = 1,
    wrapper: Sequence[str] = (),
) -> Iterator[Server]:
    """The app, served by `app.cli serve`. One worker stays on its core; more get them all.

    `wrapper` is what Python runs instead, given the app's command as its arguments.
    """
    port = _free_port()
    environment = {**environment, "PORT": str(port), "WORKERS": str(workers)}
    command = [machine.python.path, *wrapper, "-m", "app.cli", "serve"]
    core = machine.server_core if workers == 1 else None
    process = _started(pinned(command, core), environment, directory)
    yield from _until_ended(process, f"http://127.0.0.1:{port}", "/health", workers)


@contextmanager
def serving_bare(machine: Machine, directory: Path) -> Iterator[Server]:
    """The bare app, on the core of the app's server."""
    port = _free_port()
    uvicorn = ["-m", "uvicorn", "benchmarks.bare:app", "--port", str(port), "--no-access-log"]
    command = [machine.python.path, *uvicorn, "--loop", "uvloop", "--http", "httptools"]
    process = _started(pinned(command, machine.server_core), machine.environment(), directory)
    yield from _until_ended(process, f"http://127.0.0.1:{port}", "/", 1)


@contextmanager
def serving(
    machine: Machine, command: list[str], environment: Mapping[str, str], directory: Path
) -> Iterator[Server]:
    """Something else, given its PORT, on the core of the app's server; it answers at /health."""
    port = _free_port()
    environment = {**environment, "PORT": str(port)}
    process = _started(pinned(command, machine.server_core), environment, directory)
    yield from _until_ended(process, f"http://127.0.0.1:{port}", "/health", 1)


class _Process:
    """A server's process, the leader of a group of its own, with its log in a file."""

    def __init__(self, command: list[str], environment: Mapping[str, str], log: Path) -> None:
        self.log = log
        with log.open("w") as out:
            self.popen = subprocess.Popen(  # noqa: S603  put together above
                command,
                cwd=log.parent,
                env=environment,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def end(self) -> None:
        """Ask it to stop; after a while, kill it and the workers it left behind."""
        # As Ctrl-C does: a wrapper around the app goes on and writes down what it saw.
        self.popen.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            self.popen.wait(timeout=10)
        with suppress(ProcessLookupError):
            os.killpg(self.popen.pid, signal.SIGKILL)
        self.popen.wait()


def _started(command: list[str], environment: Mapping[str, str], directory: Path) -> _Process:
    return _Process(command, environment, directory / f"server-{time.monotonic_ns()}.log")


def _until_ended(process: _Process, url: str, path: str, workers: int) -> Iterator[Server]:
    try:
        _wait_for_answer(process, url + path)
        _wait_for_workers(process, workers)
        yield Server(process.popen.pid, url, workers)
        if process.popen.poll() is not None:
            raise Trouble(f"the server ended by itself:\n{_last_lines(process.log)}")
    finally:
        process.end()


def _wait_for_answer(process: _Process, url: str) -> None:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while time.monotonic() < deadline and process.popen.poll() is None:
        with suppress(httpx2.TransportError):
            if httpx2.get(url, timeout=2).is_success:
                return
        time.sleep(0.05)
    raise Trouble(f"the server did not start:\n{_last_lines(process.log)}")


def _wait_for_workers(process: _Process, workers: int) -> None:
    """The first answer comes from the first worker that is up; the others follow."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while process.log.read_text(errors="replace").count(_STARTED) < workers:
        if time.monotonic() > deadline:
            raise Trouble(f"not all workers started:\n{_last_lines(process.log)}")
        time.sleep(0.05)


def _last_lines(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-15:])


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
    return port
