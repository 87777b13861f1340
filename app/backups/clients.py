"""Backups of database servers: by the client programs that come with them.

Passwords reach those in a file for the owner alone, or in the environment: everybody on the
machine can read a command line.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import IO

from psycopg.conninfo import make_conninfo
from sqlalchemy.engine import URL

from app.sqlite import LOCK_WAIT_SECONDS

_COMPLAINT_LINES = 3
_TLS = ("ca", "capath", "cert", "cipher", "key")
_TAIL_BYTES = 200
_PIECE_BYTES = 2**16
Pieces = Generator[bytes, None, None]


class BackupError(Exception):
    """A text for the operator."""


class MariaDb:
    """The database of a `mysql://` URL, MariaDB's or MySQL's."""

    def __init__(self, url: URL) -> None:
        self._url = url

    def dump(self, target: Path) -> None:
        """A snapshot of its tables, as SQL that stops at the first table that is there already."""
        tool = _tool("mariadb-dump", "mysqldump", package="mariadb-client")
        with self._options() as options, target.open("wb") as file:
            _run(
                [
                    *(tool, options, "--default-character-set=utf8mb4"),
                    # One transaction and no locks: others go on writing.
                    *("--single-transaction", "--skip-lock-tables", "--quick"),
                    *("--hex-blob", "--no-tablespaces", "--skip-add-drop-table"),
                    str(self._url.database),
                ],
                stdout=file,
            )
        self.check(target)

    def check(self, source: Path) -> None:
        with source.open("rb") as file:
            head = file.read(_TAIL_BYTES)
            file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES))
            tail = file.read()
        if b"-- MariaDB dump" not in head and b"-- MySQL dump" not in head:
            raise BackupError(f"{source} is no backup of MariaDB")
        if b"-- Dump completed" not in tail:
            raise BackupError(f"{source} is cut off")

    def load(self, source: Path, *, dropping: Sequence[str] = ()) -> None:
        """MariaDB has no transactions for tables: what fails midway is said to have."""
        tool = _tool("mariadb", "mysql", package="mariadb-client")
        with self._options() as options:
            command = [tool, options, "--default-character-set=utf8mb4", str(self._url.database)]
            _run([*command, "--execute=SELECT 1"])
            try:
                _feed(command, self._script(source, dropping))
            except BackupError as error:
                raise BackupError(
                    f"{error} -- the database may be empty or incomplete now, serve nothing from"
                    " it: remove the cause, and restore again with --force"
                ) from error

    def _script(self, source: Path, dropping: Sequence[str]) -> Pieces:
        if dropping:
            names = ", ".join("`" + name.replace("`", "``") + "`" for name in dropping)
            waits = f"lock_wait_timeout={LOCK_WAIT_SECONDS}"
            yield f"SET SESSION {waits}, foreign_key_checks=0;".encode()
            yield f"DROP TABLE IF EXISTS {names};\n".encode()
        with source.open("rb") as file:
            yield from _pieces(file)

    @contextmanager
    def _options(self) -> Iterator[str]:
        """The option that names a file with the rest; it has to be the first of all."""
        with tempfile.NamedTemporaryFile("w", encoding="utf-8", suffix=".cnf") as file:
            file.write("[client]\n")
            file.writelines(
                f"{name}={_quoted(value)}\n" for name, value in _client_options(self._url).items()
            )
            file.flush()
            yield f"--defaults-file={file.name}"


class PostgreSql:
    """The database of a `postgresql://` URL."""

    def __init__(self, url: URL) -> None:
        arguments = dict(url.get_dialect()().create_connect_args(url)[1])
        password = arguments.pop("password", None)
        self._env = {} if password is None else {"PGPASSWORD": str(password)}
        self._conninfo = make_conninfo(**arguments)

    def dump(self, target: Path) -> None:
        """A snapshot of its tables, without owners and grants: any role can restore it."""
        tool = _tool("pg_dump", package="postgresql-client")
        options = ["--format=custom", "--no-owner", "--no-privileges"]
        with target.open("wb") as file:
            _run([tool, *options, f"--dbname={self._conninfo}"], env=self._env, stdout=file)
        self.check(target)

    def check(self, source: Path) -> None:
        with source.open("rb", buffering=0) as file:
            # Unbuffered: where we are in the file is where the program goes on from.
            if file.read(5) != b"PGDMP":
                raise BackupError(f"{source} is no backup of PostgreSQL")
            # Reads all of it, and writes it nowhere: a file that was cut off ends in an error.
            file.seek(0)
            tool = _tool("pg_restore", package="postgresql-client")
            _run([tool, "--file=/dev/null"], stdin=file)

    def load(self, source: Path, *, dropping: Sequence[str] = ()) -> None:
        """In one transaction: what was there stays when it fails."""
        reader = _tool("pg_restore", package="postgresql-client")
        tool = _tool("psql", package="postgresql-client")
        options = ["--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", f"--dbname={self._conninfo}"]
        try:
            _feed([tool, *options], self._script(reader, source, dropping), env=self._env)
        except BackupError as error:
            raise BackupError(f"{error} -- the database is as it was") from error

    def _script(self, reader: str, source: Path, dropping: Sequence[str]) -> Pieces:
        """What was there goes, what was kept comes; whatever ends early, ends without COMMIT."""
        yield b"BEGIN;\n"
        if dropping:
            names = ", ".join('"' + name.replace('"', '""') + '"' for name in dropping)
            yield f"SET LOCAL lock_timeout='{LOCK_WAIT_SECONDS}s';\n".encode()
            yield f"DROP TABLE {names} CASCADE;\n".encode()
        with source.open("rb") as file:
            yield from _output([reader, "--file=-", "--no-owner", "--no-privileges"], stdin=file)
        yield b"COMMIT;\n"


def _client_options(url: URL) -> dict[str, str]:
    """What the driver is told, under the names that the client programs know."""
    given = dict(url.get_dialect()().create_connect_args(url)[1])
    tls = {f"ssl-{name}": given.get("ssl", {}).get(name) for name in _TLS}
    names = {"user": "user", "password": "password", "host": "host", "port": "port"}
    names["unix_socket"] = "socket"
    options = {name: given[ours] for ours, name in names.items() if ours in given} | tls
    # As the driver has it: newer programs demand TLS, and check it, unless they are told.
    options["ssl-verify-server-cert"] = int(tls["ssl-ca"] is not None)
    return {name: str(value) for name, value in options.items() if value is not None}


def _quoted(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def _tool(*names: str, package: str) -> str:
    for name in names:
        if found := shutil.which(name):
            return found
    raise BackupError(f"{names[0]} is not installed: it comes with {package}")


def _run(
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


def _feed(command: list[str], script: Pieces, *, env: Mapping[str, str] | None = None) -> None:
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


def _output(command: list[str], *, stdin: IO[bytes]) -> Pieces:
    """What a program writes, piece by piece."""
    with _running(command, stdin=stdin, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        yield from _pieces(process.stdout)


def _pieces(file: IO[bytes]) -> Pieces:
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
    """A program, until it has ended. Raises BackupError, with its own words, if it failed."""
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
