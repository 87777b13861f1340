"""Rows that everybody writes, from two nodes of a cluster; and a node that is killed meanwhile."""

from __future__ import annotations

import asyncio
import time
from collections import Counter

import pytest

from app.core.permissions import ADMIN_ROLE, Permission
from tests.faults.nodes import Nodes
from tests.faults.report import Report
from tests.support.galera import Cluster, joined

pytestmark = pytest.mark.faults

AT_ONCE = 12
# Twice the deadline of a request: what was under way is refused, what comes after is served.
STANDSTILL_SECONDS = 9


@pytest.mark.parametrize("row", ["post", "user", "role"])
async def test_a_row_that_everybody_edits_is_no_defect(
    nodes: Nodes, row: str, whole: bool, report: Report
) -> None:
    """Edited, or asked to come again: nothing but 200, 409, 412 and 503."""
    boss, ana = await nodes.person(ADMIN_ROLE, "user"), await nodes.person("user")
    role_id, _ = await nodes.role(Permission.posts_write)
    made = await nodes.send(0, boss, "POST", "/posts", {"title": "One", "content": ""})
    path, name = {
        "post": (f"/posts/{made.json()['id']}", "title"),
        "user": (f"/users/{ana.id}", "name"),
        "role": (f"/roles/{role_id}", "name"),
    }[row]
    rounds, found = 20 if whole else 3, Counter[int]()
    before = nodes.cluster.conflicts()
    for number in range(rounds):
        responses = await nodes.race(
            *(
                nodes.send(each % 2, boss, "PATCH", path, {name: f"{row} {number} {each}"})
                for each in range(AT_ONCE)
            )
        )
        found.update(response.status_code for response in responses)
        report.progress(f"round {number + 1}/{rounds}, {dict(found)}")
    report.row(
        test=f"hot {row} on two nodes: {dict(found)}",
        database="galera",
        faults=nodes.cluster.conflicts() - before,
        requests=rounds * AT_ONCE,
        acknowledged=found[200],
    )
    assert set(found) <= {200, 409, 412, 503}
    assert found[200] >= rounds


async def test_the_others_go_on_when_a_node_is_killed(
    nodes: Nodes, cluster: Cluster, report: Report
) -> None:
    """The third node: the cluster stands still until the others are sure that it is gone."""
    author = await nodes.person("user")
    found, slowest, began = Counter[int](), 0.0, time.monotonic()
    cluster.nodes[2].kill()
    while time.monotonic() < began + STANDSTILL_SECONDS:
        sent = time.monotonic()
        response = await nodes.send(0, author, "POST", "/posts", {"title": "One", "content": ""})
        found[response.status_code] += 1
        slowest = max(slowest, time.monotonic() - sent)
        await asyncio.sleep(0.05)
    cluster.nodes[2].start()
    await joined(cluster.nodes[2])
    report.row(
        test=f"third node killed: {dict(found)}",
        database="galera",
        faults=1,
        requests=found.total(),
        acknowledged=found[201],
        recovery=slowest,
    )
    assert set(found) <= {201, 503}
    assert response.status_code == 201
