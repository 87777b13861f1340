"""Is it alive, is it ready, how is it."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request, Response

from app.core.exceptions import NotReady
from app.readiness import Part, Readiness
from app.routers.responses import problems
from app.schemas.base import Output

router = APIRouter(tags=["operations"])
# For operators' tools; served when METRICS_ENABLED says so.
metrics_router = APIRouter(include_in_schema=False)


class Health(Output):
    status: Literal["ok"]


@router.get("/health")
async def health() -> Health:
    """Whether the process answers. Touches nothing else."""
    return Health(status="ok")


@router.get("/health/ready", responses=problems(NotReady))
async def ready(
    request: Request,
    exclude: Annotated[
        list[Part],
        Query(
            max_length=len(Part),
            description="Parts that need not answer, as a load balancer may have it: without"
            " Redis everything is still served.",
        ),
    ] = [],  # noqa: B006 FastAPI copies it
) -> Health:
    """Whether the database answers too, and Redis where it is configured; 503 names what does not.

    Answers within a second or so.
    """
    readiness: Readiness = request.app.state.readiness
    missing = await readiness.missing(exclude=exclude)
    if missing:
        raise NotReady(parts=", ".join(missing))
    return Health(status="ok")


@metrics_router.get("/metrics")
async def metrics(request: Request) -> Response:
    """The figures of this process, for Prometheus."""
    found = request.app.state.telemetry
    body, content_type = await found.exposition(request.headers.get("accept", ""))
    return Response(body, headers={"Content-Type": content_type})
