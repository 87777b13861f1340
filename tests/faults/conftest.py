"""The harness of the fault tests: `--whole`, `report`, and the table at the end."""

from __future__ import annotations

import os
import secrets

import pytest

from tests.faults.nodes import cluster, nodes  # noqa: F401  fixtures
from tests.faults.report import Report, Table
from tests.faults.servers import api, api_env, database_server  # noqa: F401  fixtures

_TABLE = pytest.StashKey[Table]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--whole", action="store_true", help="fault tests with their full numbers, for half an hour"
    )


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_TABLE] = table = Table()
    config.pluginmanager.register(_Collector(table))


class _Collector:
    def __init__(self, table: Table) -> None:
        self._table = table

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._table.note(report)


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    table = config.stash[_TABLE]
    if table.rows:
        terminalreporter.section("faults")
        for line in table.lines():
            terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def whole(request: pytest.FixtureRequest) -> bool:
    """Whether to run with the full numbers, not a bounded selection of a few seconds."""
    asked: bool = request.config.getoption("--whole")
    return asked


@pytest.fixture
def report(request: pytest.FixtureRequest) -> Report:
    """Where this test reports its progress, and what it counted."""
    return Report(request.node)


@pytest.fixture
def seed() -> int:
    """What random moments are drawn from; `TEST_FAULTS_SEED` repeats those of another run."""
    drawn = int(os.environ.get("TEST_FAULTS_SEED") or secrets.randbelow(2**32))
    print(f"TEST_FAULTS_SEED={drawn}")  # noqa: T201 pytest shows it with the failure
    return drawn
