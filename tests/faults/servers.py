"""Fixtures: a database server to kill or freeze, and the API as a process in front of it."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support import database_servers as databases
from tests.support.database_servers import KINDS, DatabaseServer, programs
from tests.support.process import Server, environment, run_command, serving

DATABASE = "cimiento"


@pytest.fixture(params=KINDS)
async def database_server(request: pytest.FixtureRequest) -> AsyncIterator[DatabaseServer]:
    """A database server of this test alone, which it may kill."""
    if not programs(request.param):
        if os.environ.get("CI"):
            pytest.fail(f"{request.param} is not installed")
        pytest.skip(f"{request.param} is not installed")
    with databases.database_server(request.param) as started:
        await started.ready()
        started.make_database(DATABASE)
        yield started


@pytest.fixture
def api_env(database_server: DatabaseServer, tmp_path: Path) -> dict[str, str]:
    """Settings of the API: those of production, but for the limits on attempts."""
    return environment(
        data_dir=tmp_path / "data",
        database_url=database_server.url(DATABASE),
        secret_key="tests-0123456789abcdefghijklmnopqrstuv",
        port=0,
        rate_limit_enabled=False,
        access_log=False,
    )


@pytest.fixture
async def api(api_env: dict[str, str], tmp_path: Path) -> AsyncIterator[Server]:
    """The API, serving, on a migrated database."""
    status, _, complaint = await run_command("migrate", cwd=tmp_path, env=api_env)
    assert status == 0, complaint
    async with serving(tmp_path, api_env) as server:
        yield server


def defects(api: Server) -> list[str]:
    """What the API logged as an error of its own; its pool is loud about connections that broke."""
    own = [line for line in api.log if not line["logger"].startswith("sqlalchemy.pool")]
    return [str(line) for line in own if line["level"] == "ERROR"]
