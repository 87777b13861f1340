"""Rows that everybody writes, from two nodes of a cluster; and a node that is killed meanwhile."""

from __future__ import annotations

import asyncio
import time
from collections import Counter

import pytest

from app.core.permissions import ADMIN_ROLE, Permission
from tests.faults.nodes import Nodes
from tests.faults.report import Report
from tests.faults.worlds import READY_SECONDS
from tests.support.galera import Cluster, wait_until_synced

pytestmark = pytest.mark.faults

AT_ONCE = 12
# Longer than the others take to be sure that a node is gone, and the deadline of a request.
STANDSTILL_SECONDS = 7


@pytest.mark.parametrize("row", ["post", "user", "role"])
async def test_a_row_that_everybody_edits_is_no_defect(
    nodes: Nodes, row: str, whole: bool, report: Report
) -> None:
    """Edited, or asked to come again: nothing but 200, 409, 412 and 503."""
    boss, ana = await nodes.person(ADMIN_ROLE, "user"), await nodes.person("user")
    role_id, _ = await nodes.role(Permission.posts_write)
    created = await nodes.send(0, boss, "POST", "/posts", {"title": "One", "content": ""})
    path, name = {
        "post": (f"/posts/{created.json()['id']}", "title"),
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
    await wait_until_synced(cluster.nodes[2])
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


async def test_a_node_cut_off_from_the_others_refuses_and_comes_back(
    nodes: Nodes, cluster: Cluster, report: Report
) -> None:
    """Neither reads nor writes: what it knows may be old. The other node goes on."""
    author = await nodes.person("user")
    found, elsewhere = Counter[int](), Counter[int]()
    cluster.nodes[0].isolate(True)
    try:
        began = time.monotonic()
        while time.monotonic() < began + STANDSTILL_SECONDS:
            write, read, health, other = await asyncio.gather(
                nodes.send(0, author, "POST", "/posts", {"title": "One", "content": ""}),
                nodes.send(0, author, "GET", "/users/me"),
                nodes.clients[0].get("/health/ready"),
                nodes.send(1, author, "POST", "/posts", {"title": "One", "content": ""}),
            )
            found.update(each.status_code for each in (write, read, health))
            elsewhere.update([other.status_code])
            await asyncio.sleep(0.05)
    finally:
        cluster.nodes[0].isolate(False)
    assert {write.status_code, read.status_code, health.status_code} == {503}
    assert other.status_code == 201
    assert set(found) <= {200, 201, 503}, found
    assert set(elsewhere) <= {201, 503}, elsewhere
    await wait_until_synced(cluster.nodes[0])
    async with asyncio.timeout(READY_SECONDS):
        while (await nodes.clients[0].get("/health/ready")).status_code != 200:  # noqa: ASYNC110
            await asyncio.sleep(0.1)
    back = await nodes.send(0, author, "POST", "/posts", {"title": "One", "content": ""})
    assert back.status_code == 201
    report.row(
        test=f"a node cut off: {dict(found)}; elsewhere {dict(elsewhere)}",
        database="galera",
        faults=1,
        requests=found.total() + elsewhere.total(),
    )
