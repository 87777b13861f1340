"""Refusals for want of a permission: answered with 403, and written into the audit trail in a
transaction of their own."""

from __future__ import annotations

import re
import time
from typing import Any

from fastapi import Request
from starlette.responses import Response

from app.core.context import request_context
from app.core.exceptions import Forbidden
from app.crud import audit_events
from app.crud.audit_events import Subject
from app.db.engine import Database
from app.models.audit_events import AuditAct
from app.schemas.base import MAX_ID
from app.web.problems import problem

QUIET_SECONDS = 60
_MAX_REMEMBERED = 10_000
_ROW_ID = re.compile(r"[1-9][0-9]{0,18}")
_SUBJECTS = {"user_id": "user", "role_id": "role"}


class AccessDeniedLog:
    """Records the refusals of callers who are logged in, each in a transaction of its own.

    One a minute, in each process, for a caller, an operation and a reason: a caller who asks
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
            entry = {"operation": operation, "reason": reason, **details}
            act = AuditAct.access_denied
            self._noted(key, await audit_events.record_apart(self._database, act, subject, **entry))

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


async def forbidden_response(request: Request, error: Exception) -> Response:
    """Note the refusal and return the 403. The request's own transaction was rolled back by now."""
    assert isinstance(error, Forbidden)
    access_denied_log: AccessDeniedLog = request.app.state.access_denied_log
    ids = _ids(request)
    named = [(kind, ids[name]) for name, kind in _SUBJECTS.items() if name in ids]
    await access_denied_log.note(
        named[0] if named else None,
        operation=f"{request.method} {request.scope['route'].path}",
        reason=error.code,
        **error.params,
        **ids,
    )
    return problem(error, request.scope)


def _ids(request: Request) -> dict[str, int]:
    """Return the ids in the path; values that are none were refused before."""
    given = {name: str(value) for name, value in request.path_params.items()}
    ids = {name: int(value) for name, value in given.items() if _ROW_ID.fullmatch(value)}
    return {name: value for name, value in ids.items() if value <= MAX_ID}
