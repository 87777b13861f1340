"""Messages of the commands when the database fails."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy.exc import OperationalError

from app.cli.database import on_database
from app.db.engine import Database
from tests.support.commands import SetEnv, invoke


@pytest.mark.parametrize(
    "url",
    [
        "mysql://ana:hunter2@127.0.0.1:1/x",
        "postgresql://ana:hunter2@127.0.0.1:1/x",
        "sqlite:////nowhere/at/all/x.db",
    ],
)
async def test_a_database_that_is_not_there_is_a_line(set_env: SetEnv, url: str) -> None:
    set_env(database_url=url)
    refused = await invoke("migrate")
    assert refused.exit_code == 1
    line = str(refused.exception)
    assert line.startswith("cimiento: the database refuses: ")
    assert "\n" not in line
    assert "hunter2" not in line


async def test_a_statement_that_is_wrong_keeps_its_trace(set_env: SetEnv) -> None:
    async def work(_: Database) -> None:
        raise OperationalError("SELECT nonsense", {}, Exception("no such column"))

    set_env()
    with pytest.raises(OperationalError):
        await asyncio.to_thread(on_database, work)
