"""The lock of migrations on a cluster: one process holds it, only while it is alive."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pymysql.err import OperationalError as DriverError
from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError, OperationalError

from app.db.migration_lease import DEAD_AFTER_LOOKS, Lease
from tests.support.schema import empty_database, on


@pytest.fixture
def connection(database_url: str, tmp_path: Path) -> Iterator[Connection]:
    """A connection to a database without tables."""
    with empty_database(database_url, tmp_path) as url:
        engine = on(url)
        with engine.connect() as opened:
            yield opened
        engine.dispose()


@pytest.fixture
def first(connection: Connection) -> Lease:
    """A process that may migrate."""
    lease = Lease()
    lease.prepare(connection)
    assert lease.take(connection)
    return lease


def test_the_table_may_be_there(connection: Connection, first: Lease) -> None:
    second = Lease()
    second.prepare(connection)
    assert first.beat(connection)


def test_one_at_a_time(connection: Connection, first: Lease) -> None:
    second = Lease()
    assert not second.take(connection)
    first.give(connection)
    assert not first.beat(connection)
    assert second.take(connection)
    assert second.beat(connection)


def test_one_that_counts_on_keeps_it(connection: Connection, first: Lease) -> None:
    second = Lease()
    for _ in range(2 * DEAD_AFTER_LOOKS):
        assert not second.take(connection)
        assert first.beat(connection)


def test_one_that_has_stopped_counting_is_followed(connection: Connection, first: Lease) -> None:
    second = Lease()
    looks = [second.take(connection) for _ in range(DEAD_AFTER_LOOKS + 1)]
    assert looks == [False] * DEAD_AFTER_LOOKS + [True]
    assert not first.beat(connection), "it has to stop"
    first.give(connection)
    assert second.beat(connection), "nobody gives what another has"


def test_of_two_that_saw_the_same_one_takes_it(
    connection: Connection, first: Lease, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look and the write another process was faster."""
    first.give(connection)
    second, third = Lease(), Lease()
    write = Lease._write

    def be_late(self: Lease, connection: Connection, row: Any) -> bool:
        assert write(third, connection, row)
        return write(self, connection, row)

    monkeypatch.setattr(Lease, "_write", be_late)
    assert not second.take(connection)
    assert third.beat(connection)


@pytest.mark.parametrize(
    "error",
    [
        OperationalError("", None, DriverError(1213, "Deadlock: WSREP conflict")),
        IntegrityError("", None, DriverError(1062, "Duplicate entry")),
    ],
)
def test_another_node_was_first(
    connection: Connection, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    lease = Lease()
    lease.prepare(connection)

    def lose(*_: object) -> bool:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(Lease, "_write", lose)
        assert not lease.take(connection)
    assert lease.take(connection)


def test_what_is_wrong_otherwise_is_told(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = Lease()
    lease.prepare(connection)

    def fail(*_: object) -> bool:
        raise OperationalError("", None, DriverError(1045, "Access denied"))

    monkeypatch.setattr(Lease, "_write", fail)
    with pytest.raises(OperationalError):
        lease.take(connection)
