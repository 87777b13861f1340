"""Count the writes of this process by table: caches are invalidated by these counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from enum import Enum
from typing import Any

from sqlalchemy import UpdateBase, event
from sqlalchemy.orm import ORMExecuteState, Session

# The key in `Session.info`.
WRITTEN = "cimiento_written"


class WriteKind(Enum):
    """What is done to rows: inserted, or changed and deleted."""

    insert = 1
    change = 2


Written = tuple[str, WriteKind]


class WriteCounters:
    """Counts what the transactions of this process have written, table by table."""

    def __init__(self) -> None:
        self._counts: Counter[Written] = Counter()

    def note(self, written: Iterable[Written]) -> None:
        """Count a transaction that has ended."""
        self._counts.update(written)

    def count_of(self, *written: Written) -> int:
        """Return a count that grows with every transaction that wrote any of these."""
        return sum([self._counts[each] for each in written])


def note_written(session: Session, table: str, kind: WriteKind) -> None:
    """Count a write of a transaction that the session itself does not see."""
    written_by(session).add((table, kind))


def written_by(session: Session) -> set[Written]:
    """Return what a session's transaction has written so far."""
    found: set[Written] = session.info.get(WRITTEN, set())
    return found


@event.listens_for(Session, "after_flush")
def _note_rows(session: Session, _: object) -> None:
    for row in session.new:
        note_written(session, row.__tablename__, WriteKind.insert)
    for row in [*session.dirty, *session.deleted]:
        note_written(session, row.__tablename__, WriteKind.change)


@event.listens_for(Session, "do_orm_execute")
def _note_bulk(state: ORMExecuteState) -> None:
    statement = state.statement
    if isinstance(statement, UpdateBase):
        kind = WriteKind.insert if state.is_insert else WriteKind.change
        table: Any = statement.table
        note_written(state.session, table.name, kind)
