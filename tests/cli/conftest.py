"""Fixtures of the tests of the commands."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.conftest import migrate
from tests.support.backup_trials import Trial
from tests.support.client import Client
from tests.support.commands import SetEnv, invoke
from tests.support.people import new_user
from tests.support.schema import empty_database


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with all the programs there are: each notes down how it was called."""
    folder = tmp_path / "programs"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return folder


@pytest.fixture
async def trial(
    client: Client,
    database_url: str,
    tmp_path: Path,
    set_env: SetEnv,
) -> AsyncIterator[Trial]:
    """Back up a database that has a post, and make another one to restore it to."""
    person = await new_user(client)
    await person.post(
        "/posts", {"title": "Ñandú 😀", "content": "a'b\\c\"\r\n\t%; -- #", "tags": ["x"]}
    )
    set_env(database_url=database_url)
    file = tmp_path / "one.backup"
    done = await invoke("backup", str(file))
    assert done.exit_code == 0, done.output
    with empty_database(database_url, tmp_path) as target:
        await asyncio.to_thread(migrate, target, tmp_path)
        set_env(database_url=target)
        yield Trial(file, target, tmp_path)
