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

from app.cli.backup.contents import BackupError, Contents
from app.cli.backup.programs import Pieces, output, run, tool
from app.cli.backup.scripts import Block, blocks
from app.db.sqlite import LOCK_WAIT_SECONDS

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
        self._may_name_schema = "options" in url.query
        password = arguments.pop("password", None)
        self._password = None if password is None else str(password)
        self._conninfo = make_conninfo(**arguments)

    def dump(self, target: Path, tables: Sequence[str] = ()) -> None:  # noqa: ARG002 the protocol's
        """Write a snapshot of all there is, without owners and grants: any role can restore it.
        Where the URL's search_path names a schema, write that alone."""
        program = tool("pg_dump", package="postgresql-client")
        options = ["--format=custom", "--no-owner", "--no-privileges"]
        if schema := self._schema():
            options.append('--schema="' + schema.replace('"', '""') + '"')
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
        """Run the script in one transaction: what was there stays when it fails."""
        program = tool("pg_restore", package="postgresql-client")
        schema = self._schema()
        if schema and (kept_in := _schema_of(program, source)) != schema:
            raise BackupError(f"{source} is of the schema {kept_in}, DATABASE_URL means {schema}")
        try:
            with psycopg.connect(self._conninfo, password=self._password) as connection:
                _drop(connection, dropping)
                with closing(_script(program, source, without=schema)) as lines:
                    _play(connection, blocks(source, lines))
        except BackupError as error:
            raise BackupError(f"{error} -- the database is as it was") from error
        except psycopg.Error as error:
            raise BackupError(f"PostgreSQL failed: {error} -- the database is as it was") from error

    def _schema(self) -> str | None:
        """Return the schema that the URL's options lead to; None if it has none."""
        if not self._may_name_schema:
            return None
        try:
            with psycopg.connect(self._conninfo, password=self._password) as connection:
                found = connection.execute("SELECT current_schema()").fetchone()
        except psycopg.Error as error:
            raise BackupError(f"PostgreSQL failed: {error}") from error
        return str(found[0]) if found else None


def _schema_of(program: str, source: Path) -> str:
    """Return the schema that the tables of a backup are in."""
    entries = map(_ENTRY.fullmatch, _listed(program, source))
    found = (each for each in entries if each and each[1] == "TABLE")
    return next((each[2] for each in found if each[3] == "alembic_version"), "public")


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


def _script(program: str, source: Path, without: str | None = None) -> Pieces:
    """Yield the script that fills a database with tables, by lines, `without` a schema it has."""
    entries = filter(None, map(_ENTRY.fullmatch, _listed(program, source)))
    wanted = [each[0] for each in entries if each[1] != "SCHEMA" or each[3] != without]
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
