"""What the app sends to its database: counted, kept, and explained by the database itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from sqlalchemy import Engine, event, text

from app.db.engine import Database
from app.db.queries import PreparedQuery, QueryRunner, Rows

_NOT_WORK = ("BEGIN", "SAVEPOINT", "RELEASE", "ROLLBACK", "COMMIT")
_EXPLAIN = {"sqlite": "EXPLAIN QUERY PLAN", "mysql": "EXPLAIN", "postgresql": "EXPLAIN"}


@dataclass(frozen=True)
class Statement:
    """A statement as the driver got it."""

    text: str
    parameters: Any


@contextmanager
def watched(database: Database) -> Iterator[list[Statement]]:
    """The statements sent inside the block, without those that frame a transaction."""
    sent: list[Statement] = []

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if not statement.startswith(_NOT_WORK):
            sent.append(Statement(statement, parameters))

    rows = QueryRunner.rows

    async def noted(self: QueryRunner, query: PreparedQuery, parameters: Mapping[str, Any]) -> Rows:
        compiled = query.compiled(self.engine.dialect)
        note(None, None, compiled.sql, compiled.arguments(parameters))
        return await rows(self, query, parameters)

    engine = database.engine.sync_engine
    event.listen(engine, "before_cursor_execute", note)
    with pytest.MonkeyPatch.context() as patch:
        # What only reads passes the engine by.
        patch.setattr(QueryRunner, "rows", noted)
        yield sent
    event.remove(engine, "before_cursor_execute", note)


def engines(database: Database) -> list[Engine]:
    """Where statements go: to one engine on SQLite, else to one for writing and one for reading."""
    found = [database.engine.sync_engine]
    return found if database.dialect == "sqlite" else [*found, database.reading.sync_engine]


async def plan(database: Database, statement: Statement) -> list[str]:
    """How the database runs a statement: one line a step, worded as each dialect does."""
    explain = f"{_EXPLAIN[database.dialect]} {statement.text}"
    async with database.engine.connect() as connection:
        found = await connection.exec_driver_sql(explain, statement.parameters)
        return [" ".join(str(value) for value in row) for row in found]


async def gather_statistics(database: Database, table: str) -> None:
    """Let the planner know how many rows there are, as servers find out by themselves.

    SQLite never does: there a plan has to be good without.
    """
    commands = {"mysql": f"ANALYZE TABLE {table}", "postgresql": f"ANALYZE {table}"}
    if database.dialect in commands:
        async with database.engine.begin() as connection:
            await connection.execute(text(commands[database.dialect]))
