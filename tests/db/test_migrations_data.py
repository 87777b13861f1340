"""Each migration on tables with rows: up, down and up again, one process at a time."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic.config import Config
from sqlalchemy import text

from alembic import command
from tests.conftest import ROOT
from tests.support.filling import dump, fill_every_table, shared
from tests.support.migrator import Order, start
from tests.support.revisions import REVISIONS
from tests.support.schema import alembic, catalogue, connected, empty_database, rows

pytestmark = pytest.mark.long

# The first process stops before this change: tables exist, the revision is not recorded.
IN_THE_MIDDLE = 4

on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
on_servers = pytest.mark.parametrize("database_url", ["mariadb", "postgresql"], indirect=True)


@pytest.fixture
def url(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A database without tables, of this test alone, on the server of the common one."""
    monkeypatch.setenv("DATA_DIR", str(tmp_path))
    with empty_database(database_url, tmp_path) as found:
        yield found


@pytest.mark.parametrize("revision", REVISIONS)
def test_up_down_and_up_again_keeps_the_rows(url: str, revision: str) -> None:
    """Whatever both schemas have a place for is there afterwards, byte by byte."""
    alembic(url, "upgrade", revision)
    with connected(url) as connection:
        fill_every_table(connection)
        before, built = dump(connection), catalogue(connection)
    assert all(column for table in before.values() for column in table.values())
    alembic(url, "downgrade", "-1")
    if revision == REVISIONS[0]:
        return  # down to nothing; tests/db/test_migrations.py goes up from there
    with connected(url) as connection:
        below = dump(connection)
    kept, left = shared(before, below)
    assert kept == left
    assert below, "there was something to keep"
    alembic(url, "upgrade", revision)
    with connected(url) as connection:
        after, rebuilt = dump(connection), catalogue(connection)
    kept, left = shared(below, after)
    assert kept == left == below, "nothing of the older schema is missing in the newer"
    assert rebuilt == built


def test_the_second_of_two_processes_waits_for_the_first(url: str, tmp_path: Path) -> None:
    """A rolling deploy: the first stands still in the middle of its work."""
    with start(Order(url, str(tmp_path), at=IN_THE_MIDDLE, signal=signal.SIGSTOP)) as first:
        try:
            wait_until_stopped(first)
            with start(Order(url, str(tmp_path))) as second:
                assert second.stderr is not None
                assert second.stderr.readline().startswith("Waiting for another process")
                first.send_signal(signal.SIGCONT)
                complaints = [process.communicate(timeout=60)[1] for process in (first, second)]
        finally:
            first.kill()
    assert [first.returncode, second.returncode] == [0, 0], complaints
    alembic(url, "check")


def wait_until_stopped(process: subprocess.Popen[str]) -> None:
    """Return when a process of ours stands still."""
    _, status = os.waitpid(process.pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status), process.communicate()


def test_a_killed_process_lets_the_next_one_in(url: str, tmp_path: Path) -> None:
    """Its lock goes with its connection."""
    with start(Order(url, str(tmp_path), at=IN_THE_MIDDLE)) as killed:
        complaint = killed.communicate(timeout=60)[1]
    assert killed.returncode == -signal.SIGKILL, complaint
    alembic(url, "upgrade", "head")
    alembic(url, "check")


def further(url: str, folder: Path, upgrade: str) -> None:
    """One more migration, after the last one, on the way up only."""
    folder.mkdir()
    lines = (
        "import sqlalchemy as sa",
        "from alembic import op",
        f"revision, down_revision = 'further', {REVISIONS[-1]!r}",
        "def upgrade():",
        *(f"    {line}" for line in upgrade.splitlines()),
    )
    (folder / "further.py").write_text("\n".join(lines))
    config = Config(ROOT / "alembic.ini")
    config.set_main_option("version_locations", f"{ROOT}/alembic/versions{os.pathsep}{folder}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DATABASE_URL", url)
        command.upgrade(config, "head")


ANEW = """with op.batch_alter_table("sessions", recreate="always") as sessions:
    sessions.alter_column("ip", type_=sa.String(150))
"""
ORPHANS = ANEW + 'op.execute("DELETE FROM sessions")'


@on_sqlite
def test_a_table_made_anew_takes_none_of_the_rows_that_refer_to_it_along(
    url: str, tmp_path: Path
) -> None:
    """SQLite changes most of a table only by dropping it, and foreign keys cascade from that."""
    alembic(url, "upgrade", "head")
    with connected(url) as connection:
        fill_every_table(connection)
        before = rows(connection)
    further(url, tmp_path / "further", ANEW)
    with connected(url) as connection:
        assert "VARCHAR(150)" in str(catalogue(connection)["sessions"]), "the table was rebuilt"
        assert rows(connection) == before


@on_sqlite
def test_a_migration_that_leaves_rows_without_what_they_refer_to_is_undone(
    url: str, tmp_path: Path
) -> None:
    alembic(url, "upgrade", "head")
    with connected(url) as connection:
        fill_every_table(connection)
        before = rows(connection)
    with pytest.raises(SystemExit, match="rows would refer to nothing in refresh_tokens"):
        further(url, tmp_path / "further", ORPHANS)
    with connected(url) as connection:
        assert rows(connection) == before


@on_servers
def test_a_migration_may_take_longer_than_a_request(url: str, tmp_path: Path) -> None:
    """The time limit of statements is for requests; changing a large table takes minutes."""
    alembic(url, "upgrade", "head")
    limit = (
        "current_setting('statement_timeout')" if "postgresql" in url else "@@max_statement_time"
    )
    further(url, tmp_path / "further", f'op.execute("CREATE TABLE seen AS SELECT {limit} AS it")')
    with connected(url) as connection:
        assert float(connection.scalar(text("SELECT it FROM seen"))) == 0
