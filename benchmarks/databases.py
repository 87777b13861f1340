"""Databases of the benchmarks' own: created, filled, and dropped at the end."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, create_engine, text
from sqlalchemy.engine import URL, make_url

from app.db.tls import Mode, tls_of, without_tls
from app.db.urls import database_url
from benchmarks.dataset import SECRET, DataSet, fill
from benchmarks.machine import Machine
from benchmarks.servers import migrate

NAME = "cimiento_bench"
SERVERS = {
    "mariadb": os.environ.get("BENCH_MARIADB_URL", "mysql://root@127.0.0.1:3306"),
    "postgresql": os.environ.get("BENCH_POSTGRESQL_URL", "postgresql://postgres@127.0.0.1:5432"),
}
DATABASES = ("sqlite", *SERVERS)
_SYNC_DRIVERS = {"sqlite": "sqlite", "mariadb": "mysql+pymysql", "postgresql": "postgresql+psycopg"}


@dataclass(frozen=True)
class Filled:
    """A database with the data set in it. `engine` looks at it behind the server's back."""

    name: str
    data: DataSet
    engine: Engine
    environment: dict[str, str]
    directory: Path


def answers(name: str) -> bool:
    """Whether there is such a database to measure on."""
    if name not in SERVERS:
        return True
    parts = make_url(SERVERS[name])
    try:
        socket.create_connection((parts.host or "", parts.port or 0), timeout=2).close()
    except OSError:
        return False
    return True


@contextmanager
def filled(
    name: str, data: DataSet, machine: Machine, directory: Path, schema: str = NAME
) -> Iterator[Filled]:
    """Create a database with the schema of the migrations and the data set; drop it afterwards."""
    with empty(name, directory, schema) as url:
        environment = machine.environment(
            environment="development",
            # Many people log in from one address here.
            rate_limit_enabled=False,
            secret_key=SECRET,
            database_url=url.render_as_string(hide_password=False),
            data_dir=directory,
            access_log="false",
            docs_enabled="true",
        )
        migrate(machine, environment, directory)
        engine = engine_on(name, url)
        try:
            fill(engine, data)
            yield Filled(name, data, engine, environment, directory)
        finally:
            engine.dispose()


@contextmanager
def empty(name: str, directory: Path, schema: str = NAME) -> Iterator[URL]:
    if name not in SERVERS:
        yield URL.create("sqlite", database=str(directory / "bench.db"))
        return
    server = make_url(SERVERS[name])
    # PostgreSQL has to be connected to some database, if only to make another.
    admin = server.set(database="postgres" if name == "postgresql" else None)
    engine = engine_on(name, admin, isolation_level="AUTOCOMMIT")
    force = " WITH (FORCE)" if name == "postgresql" else ""
    drop = text(f"DROP DATABASE IF EXISTS {schema}{force}")
    try:
        with engine.connect() as connection:
            connection.execute(drop)
            connection.execute(text(f"CREATE DATABASE {schema}"))
        yield server.set(database=schema)
    finally:
        with engine.connect() as connection:
            connection.execute(drop)
        engine.dispose()


def engine_on(name: str, url: URL, **options: Any) -> Engine:
    """An engine that waits, with the TLS that the URL asks for."""
    url = database_url(url.render_as_string(hide_password=False))
    if name == "mariadb":
        # The driver would make Latin-1 of a text.
        arguments: dict[str, Any] = {"password": (url.password or "").encode()}
        tls, url = tls_of(url), without_tls(url).update_query_dict({"charset": "utf8mb4"})
        if tls.is_required:
            arguments["ssl"] = tls.context()
        options["connect_args"] = arguments | {"ssl_disabled": tls.mode is Mode.DISABLED}
    return create_engine(url.set(drivername=_SYNC_DRIVERS[name]), **options)
