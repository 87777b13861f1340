"""Is it alive, is it ready."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter, Request
from sqlalchemy import literal, select

from app.reading import Query
from app.routers.deps import reader_of
from app.schemas.base import Output

router = APIRouter(tags=["operations"])
_PING = Query(select(literal(1)))


class Health(Output):
    status: Literal["ok"]


@router.get("/health")
async def health() -> Health:
    """Whether the process answers. Touches nothing else."""
    return Health(status="ok")


@router.get("/health/ready")
async def ready(request: Request) -> Health:
    """Whether the database answers too; 503 when it does not."""
    await reader_of(request).rows(_PING, {})
    return Health(status="ok")
