"""kill -9 of a migration before each of its changes, and run again: it gets there, rows and all."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.report import Report
from tests.support.filling import dump, fill_every_table, shared
from tests.support.migrator import COMMIT, Migrator, migrator
from tests.support.revisions import REVISIONS
from tests.support.schema import catalogue, connected, empty_database

pytestmark = pytest.mark.faults


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Migrator]:
    with migrator(tmp_path) as running:
        yield running


@pytest.mark.parametrize("revision", REVISIONS)
@pytest.mark.parametrize("direction", ["upgrade", "downgrade"])
def test_a_migration_killed_before_any_of_its_changes_can_be_run_again(
    database_url: str,
    run: Migrator,
    revision: str,
    direction: str,
    whole: bool,
    report: Report,
    tmp_path: Path,
) -> None:
    """On MariaDB each change before the kill stays; elsewhere none does."""
    below = before(revision)
    start, goal = (below, revision) if direction == "upgrade" else (revision, below)
    with empty_database(database_url, tmp_path) as url:
        filled(run, url, start)
        changes = run.finish(url, direction, goal).reached
        with connected(url) as connection:
            expected = catalogue(connection)
    assert changes[-1] == COMMIT
    numbers = range(1, len(changes) + 1)
    chosen = numbers if whole else [len(numbers) // 2 + 1]
    for number in chosen:
        with empty_database(database_url, tmp_path) as url:
            rows = filled(run, url, start)
            outcome = run.run(url, direction, goal, at=number)
            assert outcome.was_killed, outcome.complaint
            assert outcome.reached == changes[:number]
            run.finish(url, direction, goal)
            with connected(url) as connection:
                assert catalogue(connection) == expected, changes[number - 1]
                kept, left = shared(rows, dump(connection))
            assert kept == left
        report.progress(f"{direction} {goal}: {number}/{len(changes)} changes")
    report.row(
        test=f"migration killed: {direction} to {goal}",
        database=database_url.partition("+")[0].replace("mysql", "mariadb"),
        faults=len(chosen),
        lost=0,
    )


def before(revision: str) -> str:
    """The revision below."""
    place = REVISIONS.index(revision)
    return REVISIONS[place - 1] if place else "base"


def filled(run: Migrator, url: str, revision: str) -> dict[str, dict[str, list[str]]]:
    """A database at some revision, with rows in every table."""
    if revision == "base":
        return {}
    run.finish(url, "upgrade", revision)
    with connected(url) as connection:
        fill_every_table(connection)
        return dump(connection)
