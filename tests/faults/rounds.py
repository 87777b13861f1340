"""Rounds of one race on two nodes, counted and judged."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from tests.faults.nodes import Nodes
from tests.faults.report import Report

# One round: whether an invariant was broken in it.
Round = Callable[[], Awaitable[bool]]
# What a race needs before its rounds; it returns the round.
Race = Callable[[Nodes], Awaitable[Round]]


async def run(nodes: Nodes, race: Race, report: Report, *, rounds: int, name: str = "") -> None:
    """Run the rounds of a race: none is violated, and the requests of each were under way at
    the same time."""
    name = name or race.__name__.replace("_", " ")
    once = await race(nodes)
    before, violations = nodes.cluster.conflicts(), 0
    nodes.reset_counts()
    for number in range(rounds):
        violations += await once()
        report.progress(f"round {number + 1}/{rounds}, {violations} violated")
    report.row(
        test=f"on two nodes: {name}",
        database="galera",
        faults=nodes.cluster.conflicts() - before,
        requests=nodes.requests,
        acknowledged=nodes.acknowledged,
        lost=violations,
    )
    assert violations == 0
    assert nodes.acknowledged >= rounds * 0.8, "not refused for some other reason"
    assert nodes.overlapping >= rounds * 0.9, "the requests met"
