"""A backup file, and a database with rows in it that restoring the file would replace."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import inspect

from tests.support.commands import invoke
from tests.support.schema import connected, rows


@dataclass
class Trial:
    """A backup, and a database with people in it that it would replace."""

    file: Path
    target: str
    folder: Path

    @property
    def canary(self) -> Path:
        """What a command that runs would leave."""
        return self.folder / "canary"

    def content(self) -> dict[str, Any]:
        """All of the target."""
        with connected(self.target) as connection:
            found: dict[str, Any] = rows(connection)
            return found | {"tables": inspect(connection).get_table_names()}

    async def refused(self, reason: str = "") -> None:
        """One line refuses the file: even by force nothing is dropped, or run."""
        before = self.content()
        await self.refusing_line(reason)
        assert self.content() == before

    async def refusing_line(self, reason: str = "") -> str:
        """The line that refuses the file."""
        done = await invoke("restore", str(self.file), "--force")
        line = str(done.exception)
        assert isinstance(done.exception, SystemExit), repr(done.exception)
        assert done.exit_code == 1
        assert line.startswith("cimiento: ")
        assert "\n" not in line
        assert reason in line
        assert not self.canary.exists()
        return line
