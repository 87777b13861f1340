"""The programs that come with database servers: found, fed, listened to."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import IO

from app.cli.backup.contents import BackupError

_COMPLAINT_LINES = 3
_PIECE_BYTES = 2**16
Pieces = Generator[bytes, None, None]


def tool(*names: str, package: str) -> str:
    for name in names:
        if found := shutil.which(name):
            return found
    raise BackupError(f"{names[0]} is not installed: it comes with {package}")


def run(
    command: list[str],
    *,
    env: Mapping[str, str] | None = None,
    stdin: IO[bytes] | None = None,
    stdout: IO[bytes] | None = None,
) -> None:
    """Run a program to its end."""
    source, target = stdin or subprocess.DEVNULL, stdout or subprocess.DEVNULL
    with _running(command, env=env, stdin=source, stdout=target):
        pass


def feed(command: list[str], script: Pieces, *, env: Mapping[str, str] | None = None) -> None:
    """Run a program, and hand it a script piece by piece."""
    with (
        closing(script),
        _running(command, env=env, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as process,
        # It has stopped reading: why, it says itself.
        suppress(BrokenPipeError),
    ):
        assert process.stdin is not None
        with process.stdin as pipe:
            for piece in script:
                pipe.write(piece)


def output(command: list[str], *, stdin: IO[bytes]) -> Pieces:
    """Yield what a program writes, line by line."""
    with _running(command, stdin=stdin, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        yield from process.stdout


def pieces(file: IO[bytes]) -> Pieces:
    while piece := file.read(_PIECE_BYTES):
        yield piece


@contextmanager
def _running(
    command: list[str],
    *,
    stdin: IO[bytes] | int,
    stdout: IO[bytes] | int,
    env: Mapping[str, str] | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program for the block. Raise BackupError, with its own words, if it failed."""
    # A file, which unlike a pipe is never full.
    with tempfile.TemporaryFile() as complaints:
        with subprocess.Popen(  # noqa: S603 a program of the database's, and our own words
            command,
            env={**os.environ, **(env or {})},
            stdin=stdin,
            stdout=stdout,
            stderr=complaints,
        ) as process:
            yield process
        if process.returncode:
            complaints.seek(0)
            lines = complaints.read().decode(errors="replace").strip().splitlines()
            complaint = " ".join(lines[-_COMPLAINT_LINES:])
            raise BackupError(f"{Path(command[0]).name} failed: {complaint}")
