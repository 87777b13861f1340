"""Is it alive, is it ready, how is it."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request, Response
from pydantic import Field
from starlette.responses import JSONResponse, RedirectResponse

from app.core.exceptions import NotMigrated, NotReady
from app.observability.readiness import MIGRATIONS, Part, Readiness
from app.schemas.base import ResponseModel
from app.web.dependencies import API
from app.web.error_responses import error_responses

router = APIRouter(tags=["operations"])
# For operators' tools; served when METRICS_ENABLED says so.
metrics_router = APIRouter(include_in_schema=False)


class Health(ResponseModel):
    """The answer of a server in order."""

    status: Literal["ok"] = Field(description="Always `ok`; what is not in order is an error.")


@router.get("/", include_in_schema=False)
async def root(request: Request) -> Response:
    """Lead people and tools to the docs, or to the paths of the API and its health."""
    prefix = request.scope.get("root_path", "")
    if request.app.state.settings.docs_enabled:
        return RedirectResponse(f"{prefix}/docs")
    named = {"name": request.app.title, "version": request.app.version}
    return JSONResponse({**named, "api": f"{prefix}{API}", "health": f"{prefix}/health"})


@router.get("/health")
async def health() -> Health:
    """Check that the process answers.

    Answer without asking the database or Redis, for a probe that restarts a process.
    """
    return Health(status="ok")


@router.get("/health/ready", responses=error_responses(NotReady, NotMigrated))
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
    """Check that the server can handle requests.

    Ask the database for the tables of this version and, where it is configured, Redis. 503
    names what does not answer; `not_migrated` names what `scripts/migrate` has yet to do.

    The check answers within a second or so, for a load balancer that chooses where to send
    requests.
    """
    readiness: Readiness = request.app.state.readiness
    missing = await readiness.missing(exclude=exclude)
    if missing == [MIGRATIONS]:
        raise NotMigrated
    if missing:
        raise NotReady(parts=", ".join(missing))
    return Health(status="ok")


@metrics_router.get("/metrics")
async def metrics(request: Request) -> Response:
    """Return the figures of this process, for Prometheus."""
    found = request.app.state.telemetry
    body, content_type = await found.exposition(request.headers.get("accept", ""))
    return Response(body, headers={"Content-Type": content_type})
