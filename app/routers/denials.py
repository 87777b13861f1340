"""Refused for want of a right: told to the caller, and to the audit trail."""

from __future__ import annotations

import re

from fastapi import Request
from starlette.responses import Response

from app.core.exceptions import Forbidden
from app.core.problems import problem
from app.crud.denials import Denials
from app.schemas.base import MAX_ID

_ROW_ID = re.compile(r"[1-9][0-9]{0,18}")
_SUBJECTS = {"user_id": "user", "role_id": "role"}


async def refuse(request: Request, error: Exception) -> Response:
    """Answer 403. The request's own transaction has been rolled back by now."""
    assert isinstance(error, Forbidden)
    denials: Denials = request.app.state.denials
    ids = _ids(request)
    named = [(kind, ids[name]) for name, kind in _SUBJECTS.items() if name in ids]
    await denials.note(
        named[0] if named else None,
        operation=f"{request.method} {request.scope['route'].path}",
        reason=error.code,
        **error.params,
        **ids,
    )
    return problem(error, request.scope)


def _ids(request: Request) -> dict[str, int]:
    """The ids in the path; what is none was refused before anybody looked at it."""
    given = {name: str(value) for name, value in request.path_params.items()}
    ids = {name: int(value) for name, value in given.items() if _ROW_ID.fullmatch(value)}
    return {name: value for name, value in ids.items() if value <= MAX_ID}
