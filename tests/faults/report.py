"""The progress that a fault test reports, and its results."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import pytest

_COLUMNS = {
    "test": "test",
    "database": "database",
    "faults": "faults",
    "requests": "requests",
    "acknowledged": "acknowledged",
    "lost": "lost",
    "doubled": "doubled",
    "recovery": "slowest recovery",
    "verdict": "verdict",
}
_KEY = "faults"
# What SQLAlchemy calls by the name of its dialect.
_DATABASES = {"mysql": "mariadb"}
# In a log file, where lines cannot be written over.
_LINE_SECONDS = 5
Row = dict[str, Any]


class Report:
    """Of one test: a live line while it runs, and its rows of the table at the end."""

    def __init__(self, item: pytest.Item) -> None:
        self._item = item
        self._reported_at = 0.0

    def progress(self, text: str) -> None:
        """Show how far it is: `kill 37/100, 4,211 writes acknowledged`. Call it often."""
        plugins = self._item.config.pluginmanager
        terminal, capture = (
            plugins.get_plugin("terminalreporter"),
            plugins.get_plugin("capturemanager"),
        )
        if terminal is None:  # one of several test processes
            return
        line = f"  {self._item.name}: {text}"
        with capture.global_and_fixture_disabled() if capture else nullcontext():
            if terminal.isatty:
                terminal.rewrite(line[: terminal._tw.fullwidth - 1], erase=True)
            elif time.monotonic() - self._reported_at >= _LINE_SECONDS:
                self._reported_at = time.monotonic()
                terminal.write_line(line)
            terminal.flush()

    def row(
        self,
        *,
        database: str = "",
        faults: int | str = "",
        requests: int | str = "",
        acknowledged: int | str = "",
        lost: int | str = "",
        doubled: int | str = "",
        recovery: float | str = "",
        test: str = "",
    ) -> None:
        """A row of the table: numbers as they are, `recovery` in seconds. The verdict is pytest's.

        Call it before what may fail, so that the table shows the numbers that did.
        """
        if isinstance(recovery, float):
            recovery = f"{recovery:.2f} s"
        given = {
            "test": test or self._item.name.partition("[")[0].removeprefix("test_"),
            "database": _DATABASES.get(database, database),
            "faults": faults,
            "requests": requests,
            "acknowledged": acknowledged,
            "lost": lost,
            "doubled": doubled,
            "recovery": recovery,
        }
        self._item.user_properties.append((_KEY, given))


class Table:
    """The rows of all tests, in whatever process they ran."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self._failed: set[str] = set()

    def note(self, outcome: pytest.TestReport) -> None:
        """Take the rows of a test from its last report."""
        if outcome.failed:
            self._failed.add(outcome.nodeid)
        if outcome.when != "teardown":
            return
        rows: list[Row] = [
            row for name, row in outcome.user_properties if name == _KEY and isinstance(row, dict)
        ]
        failed = outcome.nodeid in self._failed
        if failed and not rows and outcome.nodeid.startswith("tests/faults/"):
            rows = [{"test": outcome.nodeid.rpartition("::")[2]}]
        self.rows += [{**row, "verdict": "FAILED" if failed else "passed"} for row in rows]

    def lines(self) -> list[str]:
        """The table as text, a line for the head and one for each row."""
        texts = [
            [*_COLUMNS.values()],
            *([_text(row.get(key)) for key in _COLUMNS] for row in self.rows),
        ]
        widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
        return [_line(each, widths) for each in texts]


def _text(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value or "")


def _line(texts: Sequence[str], widths: Sequence[int]) -> str:
    """Names to the left, numbers to the right."""
    cells = [
        text.rjust(width) if number > 1 and text[:1].isdigit() else text.ljust(width)
        for number, (text, width) in enumerate(zip(texts, widths, strict=True))
    ]
    return "  ".join(cells).rstrip()
