"""The commands, run inside the test's own process, with settings of their own."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from app.cli import commands
from tests.conftest import SECRET
from tests.support.client import Client, Person
from tests.support.logs import kept_logging
from tests.support.settings import forget_settings

SetEnv = Callable[..., None]


@contextmanager
def command_settings(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Iterator[SetEnv]:
    """Sets settings for the commands; starts from none at all, in an empty folder."""

    def set_all(**settings: object) -> None:
        for name, value in settings.items():
            monkeypatch.setenv(name.upper(), str(value))

    forget_settings(monkeypatch, folder)
    set_all(data_dir=folder, secret_key=SECRET)
    before = os.umask(0o022)
    os.umask(before)
    try:
        with kept_logging():
            yield set_all
    finally:
        os.umask(before)


async def invoke(*arguments: str, typed: str | None = None) -> Result:
    """Run a command beside the event loop, as it starts one of its own."""
    return await asyncio.to_thread(CliRunner().invoke, commands.cli, arguments, input=typed)


async def admin_of(client: Client, email: str, password: str) -> Person:
    """Log in a user who has to be an admin."""
    person = await client.person({"email": email}, password)
    me = (await person.get("/users/me")).json()
    assert "admin" in {role["name"] for role in me["roles"]}
    return person


def printed_password(output: str) -> str:
    """Return the password that `run` has printed for the first admin."""
    [line] = [line for line in output.splitlines() if line.startswith("Password:")]
    return line.split()[1]
