"""The table at the end shows what failed, with its numbers."""

from __future__ import annotations

from typing import Literal

import pytest

from tests.faults.report import Report, Table

pytestmark = pytest.mark.faults


def ended(
    item: pytest.Item, when: Literal["call", "teardown"], outcome: Literal["passed", "failed"]
) -> pytest.TestReport:
    return pytest.TestReport(
        item.nodeid, item.location, {}, outcome, None, when, user_properties=item.user_properties
    )


@pytest.mark.parametrize(("outcome", "verdict"), [("passed", "passed"), ("failed", "FAILED")])
def test_a_row_carries_the_verdict_of_its_test(
    request: pytest.FixtureRequest, outcome: Literal["passed", "failed"], verdict: str
) -> None:
    table, item = Table(), request.node
    Report(item).row(database="sqlite", faults=3, acknowledged=4211, recovery=0.5)
    table.note(ended(item, "call", outcome))
    table.note(ended(item, "teardown", "passed"))
    item.user_properties.clear()  # not in the table of this very run
    (row,) = [line.split() for line in table.lines()[1:]]
    assert row[1:] == ["sqlite", "3", "4,211", "0.50", "s", verdict]


def test_what_failed_before_its_row_has_one_too(request: pytest.FixtureRequest) -> None:
    table = Table()
    table.note(ended(request.node, "call", "failed"))
    table.note(ended(request.node, "teardown", "passed"))
    (row,) = table.lines()[1:]
    assert row.split() == [request.node.name, "FAILED"]
