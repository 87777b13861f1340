"""The audit trail. It can be read, and nothing else."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Request

from app.crud import audit
from app.routers.bodies import StrictRoute
from app.routers.deps import API, AuditReader, pages_of
from app.routers.lists import Json, listed, parsed
from app.schemas import audit as schemas
from app.schemas.pages import Page

router = APIRouter(prefix=f"{API}/audit-events", tags=["operations"], route_class=StrictRoute)
AuditQuery = Annotated[schemas.AuditQuery, parsed(schemas.AuditQuery)]


@router.get("", response_model=Page[schemas.AuditEvent])
async def list_audit_events(_: AuditReader, query: AuditQuery, request: Request) -> Json:
    """List what happened that matters for security: who did what to whom, when, from where."""
    return listed(request, await audit.list_events(pages_of(request), query=query))
