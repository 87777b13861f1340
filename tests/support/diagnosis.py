"""What the doctor says, and databases of its own to look at."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import create_async_engine
from typer.testing import Result

from app.cli.doctor.findings import Finding, Verdict
from tests.conftest import SERVERS, _answers, migrate, on_server
from tests.support.commands import invoke


@dataclass(frozen=True)
class Diagnosis:
    """The findings of one examination."""

    result: Result
    findings: list[Finding]

    def of(self, check: str, containing: str = "") -> Finding:
        """The one finding of a check with this in its message."""
        found = [
            each for each in self.findings if each.check == check and containing in each.message
        ]
        assert len(found) == 1, (check, containing, self.findings)
        return found[0]

    def verdicts(self, check: str) -> list[Verdict]:
        return [each.verdict for each in self.findings if each.check == check]

    def checks(self) -> set[str]:
        return {each.check for each in self.findings}

    def failed(self) -> list[Finding]:
        return [each for each in self.findings if each.verdict is Verdict.fail]


async def diagnose() -> Diagnosis:
    """What `scripts/doctor --json` finds; its exit status says whether something fails."""
    result = await invoke("doctor", "--json")
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    findings = [
        Finding(**(each | {"verdict": Verdict(each["verdict"])}))
        for each in json.loads(result.stdout)
    ]
    diagnosis = Diagnosis(result, findings)
    assert result.exit_code == (1 if diagnosis.failed() else 0)
    for each in findings:
        assert (each.remedy is None) is (each.verdict is Verdict.ok), each
    return diagnosis


@asynccontextmanager
async def database_on_server(kind: str, options: str = "") -> AsyncIterator[str]:
    """The URL of a new, empty database on one of the tests' servers.

    Tests have it as the fixture `own_database`, by which they are marked `server`.
    """
    server = SERVERS[kind]
    if not _answers(server):
        if os.environ.get("CI"):
            pytest.fail(f"{kind} does not answer")
        pytest.skip(f"{kind} does not answer")
    name = f"cimiento_doctor_{secrets.token_hex(6)}"
    await on_server(server, f"CREATE DATABASE {name} {options}")
    try:
        yield f"{server}/{name}"
    finally:
        await on_server(server, f"DROP DATABASE {name}")


class OwnDatabase(Protocol):
    """Creates a database of a kind, with options of CREATE DATABASE."""

    def __call__(self, kind: str, options: str = "") -> AbstractAsyncContextManager[str]: ...


async def execute(url: str, *statements: str) -> None:
    """Do something to a database."""
    engine = create_async_engine(make_url(url), isolation_level="AUTOCOMMIT")
    async with engine.connect() as connection:
        for statement in statements:
            await connection.execute(text(statement))
    await engine.dispose()


def migrated_file(folder: Path, revision: str = "head") -> str:
    """The URL of a new SQLite database."""
    url = f"sqlite+aiosqlite:///{folder}/doctor.db"
    migrate(url, folder, revision)
    return url
