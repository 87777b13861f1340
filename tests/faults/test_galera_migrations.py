"""Two processes that migrate one database from two nodes of a cluster at once."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
from pathlib import Path
from random import Random

import pytest
from sqlalchemy import text

from tests.faults.nodes import env_of
from tests.faults.report import Report
from tests.support.galera import Cluster
from tests.support.process import run_command, running
from tests.support.revisions import REVISIONS
from tests.support.schema import alembic

pytestmark = pytest.mark.faults


def empty(cluster: Cluster, folder: Path) -> tuple[str, list[dict[str, str]]]:
    """An empty database, and the settings of a process on each of two nodes."""
    name = f"migrated_{secrets.token_hex(4)}"
    cluster.nodes[0].make_database(name)
    return name, [env_of(node.url(name), folder) for node in cluster.nodes[:2]]


def revision(cluster: Cluster, name: str) -> str:
    with cluster.nodes[2].engine(name).connect() as connection:
        connection.execute(text("SET SESSION wsrep_sync_wait = 1"))
        found: str = connection.execute(
            text("SELECT version_num FROM alembic_version")
        ).scalar_one()
    return found


@pytest.mark.parametrize("start", ["empty", REVISIONS[-2]])
async def test_two_that_migrate_at_once_both_succeed(
    cluster: Cluster,
    start: str,
    whole: bool,
    report: Report,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DATA_DIR", str(tmp_path))
    rounds, failed = 10 if whole else 2, 0
    for number in range(rounds):
        name, environments = empty(cluster, tmp_path)
        if start != "empty":
            url = environments[0]["DATABASE_URL"]
            await asyncio.to_thread(alembic, url, "upgrade", start)
        done = await asyncio.gather(
            *(run_command("migrate", cwd=tmp_path, env=env) for env in environments)
        )
        failed += sum(status != 0 for status, _, _ in done)
        assert revision(cluster, name) == REVISIONS[-1]
        report.progress(f"round {number + 1}/{rounds}, {failed} failed")
    report.row(
        test=f"two migrate at once, from {start}",
        database="galera",
        requests=2 * rounds,
        acknowledged=2 * rounds - failed,
        lost=failed,
    )
    assert not failed


async def test_one_that_was_killed_is_followed_by_another(
    cluster: Cluster, whole: bool, seed: int, report: Report, tmp_path: Path
) -> None:
    """On another node, where the lock of the dead process holds nobody up for long."""
    random, kills = Random(seed), 5 if whole else 1
    for number in range(kills):
        name, (first, second) = empty(cluster, tmp_path)
        async with running("migrate", cwd=tmp_path, env=first) as process:
            await has_begun(cluster, name)
            await asyncio.sleep(random.uniform(0, 0.3))
            assert process.process.returncode is None
            os.killpg(process.process.pid, signal.SIGKILL)
        status, _, complaint = await run_command("migrate", cwd=tmp_path, env=second)
        assert status == 0, complaint
        assert revision(cluster, name) == REVISIONS[-1]
        report.progress(f"kill {number + 1}/{kills}")
    report.row(test="killed while it migrates", database="galera", faults=kills, lost=0)


async def has_begun(cluster: Cluster, name: str) -> None:
    """Return when a migration has created its first table."""
    found = text("SELECT count(*) FROM information_schema.tables WHERE table_schema = :name")
    async with asyncio.timeout(30):
        with cluster.nodes[0].engine("mysql").connect() as connection:
            while (connection.scalar(found, {"name": name}) or 0) < 3:
                connection.rollback()
                await asyncio.sleep(0.01)
