"""Backups of PostgreSQL: written by pg_dump, read by pg_restore, and run by the driver.

psql would take lines of a file for commands to itself (`\\!` runs a program): the driver has none.
Passwords reach the programs in the environment: everybody on the machine can read a command line.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import psycopg
from psycopg.conninfo import make_conninfo
from sqlalchemy.engine import URL

from app.backups.contents import BackupError, Contents
from app.backups.programs import Pieces, output, run, tool
from app.backups.scripts import Block, blocks
from app.sqlite import LOCK_WAIT_SECONDS

# Tables, and what makes them whole. Views, functions and triggers are none of ours.
_KINDS = "|".join(
    [
        *("SCHEMA", "EXTENSION", "TABLE", "TABLE DATA", "SEQUENCE", "SEQUENCE OWNED BY"),
        *("SEQUENCE SET", "DEFAULT", "CONSTRAINT", "CHECK CONSTRAINT", "FK CONSTRAINT", "INDEX"),
    ]
)
_ENTRY = re.compile(rf"\d+; \d+ \d+ ({_KINDS}) (\S+) (\S+) .*")


class PostgreSql:
    """The database of a `postgresql://` URL."""

    def __init__(self, url: URL) -> None:
        arguments = dict(url.get_dialect()().create_connect_args(url)[1])
        password = arguments.pop("password", None)
        self._password = None if password is None else str(password)
        self._conninfo = make_conninfo(**arguments)

    def dump(self, target: Path, tables: Sequence[str] = ()) -> None:  # noqa: ARG002 the protocol's
        """A snapshot of all there is, without owners and grants: any role can restore it."""
        program = tool("pg_dump", package="postgresql-client")
        options = ["--format=custom", "--no-owner", "--no-privileges"]
        env = {} if self._password is None else {"PGPASSWORD": self._password}
        with target.open("wb") as file:
            run([program, *options, f"--dbname={self._conninfo}"], env=env, stdout=file)

    def check(self, source: Path) -> Contents:
        with source.open("rb") as file:
            if file.read(5) != b"PGDMP":
                raise BackupError(f"{source} is no backup of PostgreSQL")
        program = tool("pg_restore", package="postgresql-client")
        tables: dict[str, set[str]] = {}
        revisions: list[bytes] = []
        # Reads all of it: a file that was cut off ends in an error.
        with closing(_script(program, source)) as lines:
            for block in blocks(source, lines):
                tables |= block.created
                is_alembics = block.table == "alembic_version"
                revisions += [row for row in block.rows if is_alembics]
        is_one = len(revisions) == 1
        return Contents(tables, revisions[0].decode(errors="replace")[:-1] if is_one else None)

    def load(self, source: Path, *, dropping: Sequence[str] = ()) -> None:
        """In one transaction: what was there stays when it fails."""
        program = tool("pg_restore", package="postgresql-client")
        try:
            with psycopg.connect(self._conninfo, password=self._password) as connection:
                _drop(connection, dropping)
                with closing(_script(program, source)) as lines:
                    _play(connection, blocks(source, lines))
        except BackupError as error:
            raise BackupError(f"{error} -- the database is as it was") from error
        except psycopg.Error as error:
            raise BackupError(f"PostgreSQL failed: {error} -- the database is as it was") from error


def _drop(connection: psycopg.Connection, tables: Sequence[str]) -> None:
    if tables:
        names = ", ".join('"' + name.replace('"', '""') + '"' for name in tables)
        connection.execute(f"SET LOCAL lock_timeout='{LOCK_WAIT_SECONDS}s'".encode())
        connection.execute(f"DROP TABLE {names} CASCADE".encode())


def _play(connection: psycopg.Connection, script: Iterator[Block]) -> None:
    """Run a script of pg_restore's: statements, and rows between them."""
    cursor = connection.cursor()
    for block in script:
        cursor.execute(block.statements)
        if block.copy:
            with cursor.copy(block.copy) as copy:
                for row in block.rows:
                    copy.write(row)


def _script(program: str, source: Path) -> Pieces:
    """The lines of the script that fills a database with tables."""
    wanted = [line for line in _listed(program, source) if _ENTRY.fullmatch(line)]
    options = ["--file=-", "--no-owner", "--no-privileges"]
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", suffix=".list") as listing:
        listing.write("\n".join(wanted))
        listing.flush()
        with source.open("rb") as file:
            command = [program, *options, f"--use-list={listing.name}"]
            yield from output(command, stdin=file)


def _listed(program: str, source: Path) -> list[str]:
    with source.open("rb") as file:
        lines = output([program, "--list"], stdin=file)
        return [line.decode(errors="replace").rstrip("\n") for line in lines]
