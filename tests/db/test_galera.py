"""Detection of nodes of a Galera cluster."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from sqlalchemy import event

from app.db import galera
from app.db.engine import Database, connect, on_cluster
from tests.conftest import make_settings

PROVIDER = "/usr/lib/galera/libgalera_smm.so"


class Answering:
    """A driver's connection and cursor that answers every statement with the same rows."""

    def __init__(self, **variables: str) -> None:
        self.rows = list(variables.items())
        self.statements: list[str] = []

    def cursor(self) -> Answering:
        return self

    def execute(self, statement: str) -> None:
        self.statements.append(statement)

    def fetchall(self) -> list[tuple[str, str]]:
        return self.rows

    def close(self) -> None:
        """Nothing is open."""


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, False),  # MySQL, and MariaDB without replication
        ({"wsrep_on": "OFF", "wsrep_provider": "none"}, False),
        ({"wsrep_on": "ON", "wsrep_provider": "none"}, False),
        ({"wsrep_on": "OFF", "wsrep_provider": PROVIDER}, False),
        ({"wsrep_on": "ON", "wsrep_provider": PROVIDER}, True),
        ({"WSREP_ON": "1", "WSREP_PROVIDER": PROVIDER}, True),
    ],
)
def test_a_node_replicates_by_a_provider(variables: dict[str, str], expected: bool) -> None:
    assert galera.is_node(Answering(**variables)) is expected


async def test_the_databases_of_the_tests_are_no_nodes(database: Database) -> None:
    async with database.begin() as session:
        connection = await session.connection()
        assert await connection.run_sync(on_cluster) is False
    assert not database.is_cluster


async def test_each_connection_says_whether_it_leads_to_a_node(tmp_path: Path) -> None:
    database = connect(make_settings("mysql://app@db.example.com/app", tmp_path))
    opened = database._note_cluster
    assert event.contains(database.engine.sync_engine, "connect", opened)
    assert not database.is_cluster
    first, second = SimpleNamespace(info={}), SimpleNamespace(info={})
    node = Answering(wsrep_on="ON", wsrep_provider=PROVIDER)
    opened(node, first)
    assert "wsrep_sync_wait = 7" in node.statements[-1], "it waits for what others committed"
    assert database.is_cluster
    assert on_cluster(first)
    other = Answering()
    opened(other, second)  # a server that was put in the place of the other
    assert not database.is_cluster
    assert not on_cluster(second)
    assert len(other.statements) == 1
