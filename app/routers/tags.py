"""Tags."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Request

from app.crud import tags
from app.routers.bodies import StrictRoute
from app.routers.deps import API, pages_of
from app.routers.lists import Json, listed, parsed
from app.schemas import tags as schemas
from app.schemas.pages import Page

router = APIRouter(prefix=f"{API}/tags", tags=["tags"], route_class=StrictRoute)
TagQuery = Annotated[schemas.TagQuery, parsed(schemas.TagQuery)]


@router.get("", response_model=Page[schemas.TagCount])
async def list_tags(query: TagQuery, request: Request) -> Json:
    """List the tags of published posts, with how many have each."""
    return listed(request, await tags.list_tags(pages_of(request), query=query))
