"""kill -9 of the database under writers: 503s meanwhile, nothing acknowledged is lost."""

from __future__ import annotations

import asyncio
import random
import time

import pytest

from tests.faults.posting import PROMISED_SECONDS, Ledger, compare, writing
from tests.faults.report import Report
from tests.faults.servers import DATABASE, defects
from tests.support.database_servers import DatabaseServer
from tests.support.process import Server

pytestmark = pytest.mark.faults
WRITERS = 8
RECOVERY_SECONDS = 5.0


async def test_no_acknowledged_write_is_lost_when_the_database_is_killed(
    database_server: DatabaseServer, api: Server, whole: bool, report: Report
) -> None:
    """Recovery is without a restart of the API, within five seconds of the database's."""
    kills = 30 if whole else 3
    ledger, slowest = Ledger(), 0.0
    moments = random.Random(time.time_ns())
    async with writing(api.url, ledger, writers=WRITERS):
        await ledger.all_have_written_since(0, WRITERS)
        for number in range(kills):
            await asyncio.sleep(moments.uniform(0.05, 0.8))
            refused = ledger.statuses[503]
            await asyncio.to_thread(database_server.kill)
            await asyncio.sleep(moments.uniform(0.0, 0.5))
            database_server.start()
            await database_server.ready()
            back = time.monotonic()
            slowest = max(slowest, await ledger.all_have_written_since(back, WRITERS))
            assert ledger.statuses[503] > refused, "the fault was met"
            report.progress(f"kill {number + 1}/{kills}, {ledger.acknowledged:,} acknowledged")
    findings = compare(database_server.engine(DATABASE), ledger)
    report.row(
        database=database_server.kind,
        faults=database_server.kills,
        requests=ledger.requests,
        acknowledged=ledger.acknowledged,
        lost=len(findings.lost),
        doubled=len(findings.doubled),
        recovery=slowest,
    )
    assert database_server.kills == kills
    assert findings.lost == findings.doubled == findings.half == []
    assert ledger.violations == []
    assert slowest < RECOVERY_SECONDS
    assert ledger.slowest < PROMISED_SECONDS
    assert api.process.returncode is None, "it was never restarted"
    assert defects(api) == []
