"""The real app on real databases: SQLite always, MariaDB and PostgreSQL where they answer.

Every test that asks for `client` (or anything built on it) runs once per database. Data is
really committed, as in production, and wiped between tests; the schema comes from Alembic.
"""

from __future__ import annotations

import asyncio
import gc
import os
import socket
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path

import httpx2
import pytest
from fastapi import FastAPI
from sqlalchemy import delete, text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import create_async_engine

from alembic import command
from app.config import Settings
from app.core.security import HashCost, Passwords
from app.db import migrations
from app.db.engine import Database
from app.db.migrations import Location
from app.main import close_app, create_app
from app.models import Base
from app.models.base import INCLUDE_DELETED
from app.models.roles import Role
from tests.support import canaries
from tests.support.canaries import Watch, watched_logs
from tests.support.client import Client
from tests.support.measuring import keep_greenlets_of_threads, measure_greenlets_quickly
from tests.support.openapi import Contract

pytest_plugins = ["tests.support.fixtures"]
ROOT = Path(__file__).parent.parent
SERVERS = {
    "mariadb": os.environ.get("TEST_MARIADB_URL", "mysql+aiomysql://root@127.0.0.1:3306"),
    "postgresql": os.environ.get(
        "TEST_POSTGRESQL_URL", "postgresql+psycopg://postgres@127.0.0.1:5432"
    ),
}
DATABASES = ("sqlite", *SERVERS)
SECRET = canaries.SECRET
CHEAP = HashCost(memory_kib=8, passes=1, lanes=1)


def _answers(url: str) -> bool:
    parts = make_url(url)
    try:
        socket.create_connection((parts.host or "", parts.port or 0), timeout=2).close()
    except OSError:
        return False
    return True


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("cov_source", None):
        measure_greenlets_quickly()
        keep_greenlets_of_threads()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what runs on a database server, so that CI measures the coverage of the rest alone, and
    of what runs on a server only: what asks for a database of its own there.

    Files that take long come first: at the end the others would wait for the process that has one.
    """
    for item in items:
        call = getattr(item, "callspec", None)
        if call is not None and call.params.get("database_url") in SERVERS:
            item.add_marker(pytest.mark.server)
        if "own_database" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.server)
            item.add_marker(pytest.mark.measured)
    long = {item.path for item in items if item.get_closest_marker("long")}
    items.sort(key=lambda item: item.path not in long)


def pytest_collection_finish() -> None:
    """Spare the garbage collector what all tests stand on: the modules and the tests themselves."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Captured output may hold lone surrogates; test processes send each other UTF-8."""
    report = yield
    report.sections = [
        (title, text.encode("utf-8", "backslashreplace").decode())
        for title, text in report.sections
    ]
    return report


@pytest.fixture(scope="session", params=DATABASES)
def database_url(request: pytest.FixtureRequest, databases: Callable[[str], str]) -> str:
    """A database of this test process alone, with the schema of the migrations."""
    kind = request.param
    if kind in SERVERS and not _answers(SERVERS[kind]):
        if os.environ.get("CI"):
            pytest.fail(f"{kind} does not answer at {SERVERS[kind]}")
        pytest.skip(f"{kind} does not answer")
    return databases(kind)


@pytest.fixture(scope="session")
def databases(
    tmp_path_factory: pytest.TempPathFactory, worker_id: str
) -> Iterator[Callable[[str], str]]:
    """Makes a database of a kind, once: the files of a test process come to it in turns."""
    with ExitStack() as stack:

        @cache
        def database_of(kind: str) -> str:
            folder = tmp_path_factory.mktemp(kind)
            url = f"sqlite+aiosqlite:///{folder}/test.db"
            if kind in SERVERS:
                name = f"cimiento_test_{os.getpid()}_{worker_id}"
                url = stack.enter_context(_database_on(SERVERS[kind], name))
            migrate(url, folder)
            return url

        yield database_of


@contextmanager
def _database_on(server: str, name: str) -> Iterator[str]:
    asyncio.run(on_server(server, f"CREATE DATABASE {name}"))
    try:
        yield f"{server}/{name}"
    finally:
        # MariaDB drops what is in use; PostgreSQL needs FORCE, as a backend may outlive a
        # connection that a test has cut.
        force = " WITH (FORCE)" if "postgresql" in server else ""
        asyncio.run(on_server(server, f"DROP DATABASE {name}{force}"))


@pytest.fixture(scope="session")
def worker_id() -> str:
    """The name of the test process when several run side by side."""
    return os.environ.get("PYTEST_XDIST_WORKER", "main")


async def on_server(server: str, statement: str) -> None:
    """Run a statement on a server, outside any database of a test."""
    url = make_url(server)
    if url.get_backend_name() == "postgresql":
        url = url.set(database="postgres")
    engine = create_async_engine(url, isolation_level="AUTOCOMMIT")
    try:
        async with engine.connect() as connection:
            await connection.execute(text(statement))
    finally:
        await engine.dispose()


def migrate(
    url: str, data_dir: Path, revision: str = "head", location: Location | None = None
) -> None:
    """Bring a database to a revision, as `scripts/migrate` does."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DATABASE_URL", url)
        patch.setenv("DATA_DIR", str(data_dir))
        command.upgrade(migrations.config(location), revision)


def make_settings(database_url: str, data_dir: Path, **overrides: object) -> Settings:
    """Settings of a test app: nothing from the environment, nothing from `.env`."""
    values = {
        "database_url": database_url,
        "data_dir": data_dir,
        "secret_key": SECRET,
        "log_level": "INFO",
        # Hundreds of logins come from one address; tests/web/test_rate_limits_login.py limits them.
        "rate_limit_enabled": False,
    }
    return Settings(_env_file=None, **(values | overrides))  # type: ignore[arg-type]  # converted


@pytest.fixture(scope="session")
def log_watch() -> Watch:
    """Reads along with every log line of the test process."""
    return watched_logs()


@pytest.fixture(autouse=True)
def _no_secret_is_logged(log_watch: Watch) -> Iterator[None]:
    """A57: in no test at all."""
    yield
    assert log_watch.take() == [], "a secret was logged"


@pytest.fixture(scope="session")
async def apps(
    tmp_path_factory: pytest.TempPathFactory,
    databases: Callable[[str], str],  # noqa: ARG001 dropped when the apps are closed
) -> AsyncIterator[Callable[[str], FastAPI]]:
    """Yield a function that creates the app of a database once."""
    app_by_url: dict[str, FastAPI] = {}

    def app_of(url: str) -> FastAPI:
        if url not in app_by_url:
            settings = make_settings(url, tmp_path_factory.mktemp("data"))
            app_by_url[url] = create_app(settings, passwords=Passwords(CHEAP))
        return app_by_url[url]

    yield app_of
    for each in app_by_url.values():
        await close_app(each)


@pytest.fixture(scope="session")
def shared_app(database_url: str, apps: Callable[[str], FastAPI]) -> FastAPI:
    """The app, with cheap password hashes and without a running dispatcher."""
    return apps(database_url)


@pytest.fixture
async def app(shared_app: FastAPI) -> AsyncIterator[FastAPI]:
    """The app on an empty database."""
    yield shared_app
    await wipe(shared_app.state.database)


async def wipe(database: Database) -> None:
    """Leave nothing but the system roles, as after the migrations."""
    everything = {INCLUDE_DELETED: True, "synchronize_session": False}
    async with database.begin() as session:
        for table in reversed(Base.metadata.sorted_tables):
            if table.name not in {"roles", "role_permissions"}:
                await session.execute(delete(table))
        await session.execute(
            delete(Role).where(Role.name.not_in(["admin", "user"])), execution_options=everything
        )


@pytest.fixture
async def database(app: FastAPI) -> Database:
    """The app's database, for looking behind the API."""
    found: Database = app.state.database
    return found


@pytest.fixture(scope="session")
def contract(shared_app: FastAPI) -> Contract:
    """The OpenAPI document, to hold responses against."""
    return _contract_of(shared_app)


@cache
def _contract_of(app: FastAPI) -> Contract:
    return Contract(app.openapi())


@pytest.fixture
async def client(app: FastAPI, contract: Contract) -> AsyncIterator[Client]:
    """An HTTP client of the app; every response it gets is checked against OpenAPI."""
    transport = httpx2.ASGITransport(app=app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://testserver") as http:
        yield Client(http, app, contract)
