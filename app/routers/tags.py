"""Tags."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Request

from app.crud import tags
from app.schemas import tags as schemas
from app.schemas.pages import Page
from app.web.dependencies import API, paginator_of
from app.web.pagination import page_response, query_params
from app.web.responses import FastJSONResponse
from app.web.strict_route import StrictRoute

router = APIRouter(prefix=f"{API}/tags", tags=["tags"], route_class=StrictRoute)
TagQuery = Annotated[schemas.TagQuery, query_params(schemas.TagQuery)]


@router.get("", response_model=Page[schemas.TagCount])
async def list_tags(query: TagQuery, request: Request) -> FastJSONResponse:
    """List tags.

    List the tags of published posts, with the number of posts that have each.
    """
    return page_response(request, await tags.list_tags(paginator_of(request), query=query))
