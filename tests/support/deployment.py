"""What the files of a deployment are held against."""

from __future__ import annotations

from app.cli.commands import cli
from tests.support.process import ROOT


def text(name: str) -> str:
    """A file of the repository."""
    return (ROOT / name).read_text(encoding="utf-8")


def commands() -> set[str]:
    """The commands there are, as they are typed."""
    return {
        str(command.name or command.callback.__name__.replace("_", "-"))
        for command in cli.registered_commands
        if command.callback
    }
