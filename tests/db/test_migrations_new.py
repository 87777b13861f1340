"""The command that writes a new migration: it runs, and has the next number."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from alembic.config import CommandLine, Config
from alembic.script import Script
from sqlalchemy import Column, Computed, Enum, String, Table, Text, UniqueConstraint
from sqlalchemy.dialects import mysql

from alembic import command
from app.db import migrations
from app.models import Base
from app.models.base import TABLE_OPTIONS, BigId, UtcDateTime, exact_text
from app.models.posts import PostStatus
from tests.conftest import ROOT
from tests.support.schema import catalogue, connected, empty_database

TABLE = "made_up_notes"
LAST = int(sorted((ROOT / "alembic" / "versions").glob("*.py"))[-1].name[:4])


@pytest.fixture
def url(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with empty_database(database_url, tmp_path) as found:
        monkeypatch.setenv("DATABASE_URL", found)
        monkeypatch.setenv("DATA_DIR", str(tmp_path))
        yield found


@pytest.fixture
def config(url: str, tmp_path: Path) -> Config:  # noqa: ARG001 the settings name it
    """Alembic on a copy of the migrations, at the last one."""
    ours = migrations.config()
    copy = shutil.copytree(ROOT / "alembic", tmp_path / "alembic")
    ours.set_main_option("script_location", str(copy))
    command.upgrade(ours, "head")
    return ours


@pytest.fixture
def made_up() -> Iterator[Table]:
    """A table with a column of each kind that models have."""
    options: dict[str, Any] = TABLE_OPTIONS
    table = Table(
        TABLE,
        Base.metadata,
        Column("id", BigId, primary_key=True, autoincrement=True),
        Column("name", exact_text(20), nullable=False, index=True),
        Column("name_key", exact_text(20), Computed("lower(name)", persisted=True)),
        Column("content", Text().with_variant(mysql.MEDIUMTEXT(), "mysql", "mariadb")),
        Column("status", Enum(PostStatus, native_enum=False, length=20), nullable=False),
        Column("note", String(10), server_default="-"),
        Column("at", UtcDateTime(), nullable=False),
        UniqueConstraint("name"),
        **options,
    )
    yield table
    Base.metadata.remove(table)


@pytest.mark.usefixtures("made_up")
def test_a_written_migration_runs_up_and_down(url: str, config: Config) -> None:
    script = command.revision(config, "notes", autogenerate=True)
    assert isinstance(script, Script)
    assert script.revision == f"{LAST + 1:04}"
    assert Path(script.path).name == f"{LAST + 1:04}_notes.py"
    text = Path(script.path).read_text()
    assert TABLE in text
    assert "app." not in text
    command.upgrade(config, "head")
    command.check(config)
    with connected(url) as connection:
        assert TABLE in catalogue(connection)
    command.downgrade(config, "-1")
    with connected(url) as connection:
        assert TABLE not in catalogue(connection)


def test_an_empty_migration_is_numbered_too(config: Config) -> None:
    numbers = [command.revision(config, name) for name in ("one", "two")]
    assert [getattr(each, "revision", None) for each in numbers] == [
        f"{LAST + 1:04}",
        f"{LAST + 2:04}",
    ]


def test_a_number_that_is_given_is_kept(config: Config) -> None:
    config.cmd_opts = CommandLine().parser.parse_args(["revision", "--rev-id", "0042"])
    script = command.revision(config, "later", rev_id="0042")
    assert isinstance(script, Script)
    assert script.revision == "0042"
