"""Backups under load, again and again."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.backups import backed_up_under_load

pytestmark = pytest.mark.faults


async def test_backups_under_load_restore_and_log_people_in(
    database_url: str, tmp_path: Path, whole: bool
) -> None:
    rounds = 20 if whole else 2
    assert await backed_up_under_load(database_url, tmp_path, rounds=rounds) > 0
