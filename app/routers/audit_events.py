"""The audit trail. It can be read, and nothing else."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Request

from app.crud import audit_events
from app.schemas import audit_events as schemas
from app.schemas.pages import Page
from app.web.dependencies import API, AuditReader, paginator_of
from app.web.pagination import page_response, query_params
from app.web.responses import FastJSONResponse
from app.web.strict_route import StrictRoute

router = APIRouter(prefix=f"{API}/audit-events", tags=["operations"], route_class=StrictRoute)
AuditQuery = Annotated[schemas.AuditQuery, query_params(schemas.AuditQuery)]


@router.get("", response_model=Page[schemas.AuditEvent])
async def list_audit_events(
    _: AuditReader, query: AuditQuery, request: Request
) -> FastJSONResponse:
    """List audit events.

    List what happened that matters for security: who did what to whom, when, from where and
    in which request.
    """
    return page_response(
        request, await audit_events.list_events(paginator_of(request), query=query)
    )
