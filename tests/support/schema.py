"""Databases of one's own, looked at from below: what is in the catalogue, what is in the rows."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from alembic.config import Config
from sqlalchemy import Connection, Engine, create_engine, event, inspect, text
from sqlalchemy.engine import URL, make_url

from alembic import command
from app.db.migrations import FTS_PREFIX
from app.models import Base
from tests.conftest import ROOT

_SYNC_DRIVERS = {"sqlite": "sqlite", "mysql": "mysql+pymysql", "postgresql": "postgresql+psycopg"}
_CHANGES = ("CREATE", "INSERT")


def on(url: str | URL) -> Engine:
    """A plain engine on a database of the tests."""
    database_url = make_url(url)
    driver = _SYNC_DRIVERS[database_url.get_backend_name()]
    return create_engine(database_url.set(drivername=driver))


@contextmanager
def connected(url: str | URL) -> Iterator[Connection]:
    """A connection whose work is committed at the end."""
    engine = on(url)
    try:
        with engine.begin() as connection:
            yield connection
    finally:
        engine.dispose()


@contextmanager
def empty_database(beside: str, directory: Path) -> Iterator[str]:
    """The URL of a database without tables on the same server, gone afterwards.

    On MariaDB its default is latin1, so that only what the tables say themselves is utf8mb4.
    """
    name = f"cimiento_own_{os.getpid()}_{secrets.token_hex(4)}"
    server = make_url(beside)
    if server.get_backend_name() == "sqlite":
        yield f"sqlite+aiosqlite:///{directory}/{name}.db"
        return
    charset = " CHARACTER SET latin1" if server.get_backend_name() == "mysql" else ""
    _on_server(beside, f"CREATE DATABASE {name}{charset}")
    try:
        yield server.set(database=name).render_as_string(hide_password=False)
    finally:
        _on_server(beside, f"DROP DATABASE {name}")


def _on_server(url: str, statement: str) -> None:
    engine = on(url)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql(statement)
    engine.dispose()


def alembic(url: str, action: str, *arguments: str) -> None:
    """Run an alembic command (`upgrade`, `check` …) on a database, as `scripts/migrate` does."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DATABASE_URL", url)
        getattr(command, action)(Config(ROOT / "alembic.ini"), *arguments)


class KilledError(Exception):
    """The process is gone."""


@contextmanager
def killed_at(number: int) -> Iterator[list[str]]:
    """Every engine stops dead at the n-th statement that changes something; what was reached."""
    reached: list[str] = []

    def count(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        if statement.lstrip().startswith(_CHANGES):
            reached.append(statement)
            if len(reached) == number:
                raise KilledError

    event.listen(Engine, "before_cursor_execute", count)
    try:
        yield reached
    finally:
        event.remove(Engine, "before_cursor_execute", count)


def tables(connection: Connection) -> set[str]:
    """All but Alembic's own, and the indexes of SQLite that are tables."""
    found = set(inspect(connection).get_table_names()) - {"alembic_version"}
    return {name for name in found if not name.startswith(FTS_PREFIX)}


def rows(connection: Connection) -> dict[str, list[Any]]:
    """Every row of every table: equal means that the data survived."""
    return {
        table.name: sorted(map(tuple, connection.execute(table.select())), key=repr)
        for table in Base.metadata.sorted_tables
    }


def catalogue(connection: Connection) -> dict[str, list[str]]:
    """What the database itself says of each table, in an order of its own choosing."""
    describe = {"sqlite": _sqlite, "mysql": _mariadb, "postgresql": _postgresql}
    described = {
        table: describe[connection.dialect.name](connection, table) for table in tables(connection)
    }
    return {table: sorted(line.strip(" ,") for line in lines) for table, lines in described.items()}


def _sqlite(connection: Connection, table: str) -> list[str]:
    statement = text(
        "SELECT sql FROM sqlite_master WHERE tbl_name = :table"
        " AND sql IS NOT NULL AND type <> 'trigger'"
    )
    found = connection.scalars(statement, {"table": table})
    return [part for sql in found for part in _parts(sql.replace("IF NOT EXISTS ", ""))]


def _parts(sql: str) -> list[str]:
    """The columns and constraints of a CREATE TABLE: SQLite appends a column that is added later
    to the text as it was, without a line of its own."""
    head, _, rest = sql.partition("(")
    parts, depth = [""], 0
    for letter in rest.rpartition(")")[0]:
        depth += (letter == "(") - (letter == ")")
        if letter == "," and not depth:
            parts.append("")
        else:
            parts[-1] += letter
    return [head, *(part.strip() for part in parts)]


def _mariadb(connection: Connection, table: str) -> list[str]:
    sql = connection.exec_driver_sql(f"SHOW CREATE TABLE `{table}`").one()[1]
    return re.sub(r" AUTO_INCREMENT=\d+", "", sql).splitlines()


def _postgresql(connection: Connection, table: str) -> list[str]:
    statement = text(
        "SELECT concat_ws(' ', column_name, data_type, character_maximum_length, is_nullable,"
        " datetime_precision, column_default, generation_expression)"
        " FROM information_schema.columns WHERE table_name = :table"
        " UNION ALL SELECT indexdef FROM pg_indexes WHERE tablename = :table"
        " UNION ALL SELECT concat(conname, ' ', pg_get_constraintdef(oid))"
        " FROM pg_constraint WHERE conrelid = CAST(:table AS regclass)"
    )
    return list(connection.scalars(statement, {"table": table}))
