"""What somebody was denied: written into the audit trail beside the request that was refused."""

from __future__ import annotations

import time
from typing import Any

from app.core.context import request_context
from app.crud import audit
from app.crud.audit import Subject
from app.database import Database
from app.models.audit import AuditAct

QUIET_SECONDS = 60
_MAX_REMEMBERED = 10_000


class Denials:
    """Records the refusals of callers who are logged in, each in a transaction of its own.

    One a minute, in each process, for a caller, an operation and a reason: somebody who asks
    over and over fills no disk. The access log has them all.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._quiet_until: dict[tuple[int, str, str], float] = {}

    async def note(self, subject: Subject, *, operation: str, reason: str, **details: Any) -> None:
        """Write down that the request's caller was refused an operation. Never raises: what
        cannot be written is logged."""
        caller_id = request_context().user_id
        if caller_id is None:
            return
        key = caller_id, operation, reason
        if self._is_news(key):
            told = {"operation": operation, "reason": reason, **details}
            act = AuditAct.access_denied
            self._noted(key, await audit.record_apart(self._database, act, subject, **told))

    def _noted(self, key: tuple[int, str, str], is_written: bool) -> None:
        if not is_written:
            self._quiet_until.pop(key, None)

    def _is_news(self, key: tuple[int, str, str]) -> bool:
        now = time.monotonic()
        if now < self._quiet_until.get(key, 0):
            return False
        if len(self._quiet_until) >= _MAX_REMEMBERED:
            self._quiet_until.clear()
        self._quiet_until[key] = now + QUIET_SECONDS
        return True
