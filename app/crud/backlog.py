"""Measure the backlog of the outbox."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, or_, select

from app.db.queries import PreparedQuery, QueryRunner
from app.models.base import DatabaseNow
from app.models.outbox import Mail, MailState

# Not those that were sent: they are ever more, and to count them takes ever longer.
_COUNTED = (MailState.pending, MailState.sending, MailState.dead)
_BY_STATE = PreparedQuery(
    select(Mail.state, func.count(), func.min(Mail.next_attempt_at), DatabaseNow())
    .where(or_(*(Mail.state == state for state in _COUNTED)))
    .group_by(Mail.state)
)


@dataclass(frozen=True, slots=True)
class Backlog:
    """How many mails are in each state but `sent`; for how many seconds the oldest has been due.

    A mail that is tried again later is not due until then; one that is being sent only when its
    process must have died.
    """

    counts: dict[MailState, int]
    lag_seconds: float


async def measure(reader: QueryRunner) -> Backlog:
    """Return the backlog as it is now."""
    counts, lag = dict.fromkeys(_COUNTED, 0), 0.0
    for state, count, due, now in await reader.rows(_BY_STATE, {}):
        counts[MailState(state)] = count
        if state != MailState.dead:
            waited = datetime.fromisoformat(now) - datetime.fromisoformat(due)
            lag = max(lag, waited.total_seconds())
    return Backlog(counts, lag)
