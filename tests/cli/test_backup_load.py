"""A backup under load restores into an empty database and logs people in."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.backups import backed_up_under_load

pytestmark = pytest.mark.long


async def test_a_backup_under_load_restores_and_logs_people_in(
    database_url: str, tmp_path: Path
) -> None:
    written = await backed_up_under_load(database_url, tmp_path, rounds=1)
    assert written > 0, "nobody wrote while it was taken"
