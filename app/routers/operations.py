"""Is it alive, is it ready."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter
from sqlalchemy import text

from app.routers.deps import DatabaseDep
from app.schemas.base import Output

router = APIRouter(tags=["operations"])


class Health(Output):
    status: Literal["ok"]


@router.get("/health")
async def health() -> Health:
    """Whether the process answers. Touches nothing else."""
    return Health(status="ok")


@router.get("/health/ready")
async def ready(database: DatabaseDep) -> Health:
    """Whether the database answers too; 503 when it does not."""
    async with database.begin(readonly=True) as session:
        await session.execute(text("SELECT 1"))
    return Health(status="ok")
