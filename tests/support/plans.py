"""How much work a listing's statements are: rows read and rows sorted, as the database counts them.

The statements are the app's own: a `QueryRunner` of the tests runs them, on a plain connection, for
the functions of `app/crud/`.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Dialect

from app.db.queries import PreparedQuery, QueryRunner, Rows

# Of SQLite's machine, a row that is read from an index and passed over.
_STEPS_A_ROW = 8
_STEPS = 50
# Every row that is counted must be read; how many a count may count is another matter.
_COUNT = re.compile(r"\s*SELECT count\(\*\)(?!.*\bLIMIT\b)", re.DOTALL)


@dataclass(frozen=True)
class Work:
    """What finding a page took, counts of all matches aside."""

    read: int = 0
    ordered: int = 0

    def __add__(self, other: Work) -> Work:
        return Work(self.read + other.read, self.ordered + other.ordered)


class MeasuringReader(QueryRunner):
    """Runs queries on one connection and adds up the work; counts run only once."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.work = Work()
        self._dialect: Dialect = connection.dialect
        self._counted: dict[Hashable, Rows] = {}

    async def rows(self, query: PreparedQuery, parameters: Mapping[str, Any]) -> Rows:
        compiled = query.compiled(self._dialect)
        arguments = compiled.arguments(parameters)
        if _COUNT.match(compiled.sql):
            name = compiled.sql, str(arguments)
            if name not in self._counted:
                self._counted[name] = self._run(compiled.sql, arguments)
            return self._counted[name]
        measure = {"mysql": self._mariadb, "sqlite": self._sqlite}.get(
            self._dialect.name, self._postgresql
        )
        work, rows = measure(compiled.sql, arguments)
        self.work += work
        return compiled.converted(rows)

    def arguments(self, query: PreparedQuery, parameters: Mapping[str, Any]) -> Hashable:
        return str(query.compiled(self._dialect).arguments(parameters))

    def version(self, query: PreparedQuery) -> int:  # noqa: ARG002 nothing is written meanwhile
        return 0

    def _run(self, sql: str, arguments: Any) -> Rows:
        return [tuple(row) for row in self.connection.exec_driver_sql(sql, arguments)]

    def _mariadb(self, sql: str, arguments: Any) -> tuple[Work, Rows]:
        self.connection.exec_driver_sql("FLUSH STATUS")
        rows = self._run(sql, arguments)
        status: dict[str, str] = dict(
            self._run("SHOW SESSION STATUS WHERE Variable_name LIKE 'Handler_read%%'", ())
        )
        (_, ordered), *_ = self._run("SHOW SESSION STATUS LIKE 'Sort_rows'", ())
        return Work(sum(int(each) for each in status.values()), int(ordered)), rows

    def _postgresql(self, sql: str, arguments: Any) -> tuple[Work, Rows]:
        [(plans,)] = self._run(f"EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) {sql}", arguments)
        return _node(plans[0]["Plan"]), self._run(sql, arguments)

    def _sqlite(self, sql: str, arguments: Any) -> tuple[Work, Rows]:
        ticks = 0

        def tick() -> int:
            nonlocal ticks
            ticks += 1
            return 0

        driver: Any = self.connection.connection.driver_connection
        driver.set_progress_handler(tick, _STEPS)
        rows = self._run(sql, arguments)
        driver.set_progress_handler(None, 0)
        read = ticks * _STEPS // _STEPS_A_ROW
        plan = self._run(f"EXPLAIN QUERY PLAN {sql}", arguments)
        inner = {row[0] for row in plan if row[3].startswith(("MATERIALIZE", "CO-ROUTINE"))}
        is_sorted = any("TEMP B-TREE" in row[3] for row in plan if row[1] in inner)
        return Work(read, read if is_sorted else 0), rows


def _node(node: Mapping[str, Any]) -> Work:
    """The work of a node of PostgreSQL's plan, and of those below it."""
    work = Work()
    below = node.get("Plans", [])
    if "Scan" in node["Node Type"]:
        passed_over = node.get("Rows Removed by Filter", 0)
        work = Work(int(node["Actual Loops"] * (node["Actual Rows"] + passed_over)))
    if node["Node Type"] in {"Sort", "Incremental Sort"}:
        work = Work(0, sum(int(each["Actual Loops"] * each["Actual Rows"]) for each in below))
    return sum(map(_node, below), work)
